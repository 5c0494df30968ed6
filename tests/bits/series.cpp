// Models of series.
#include "bits/print.hpp"

int main() {
  const bool series = test::bits::print<test::kept::Series>("Series");
  const bool wide = test::bits::print<test::kept::WideSeries>("WideSeries");
  return series && wide ? 0 : 1;
}
