// Alternating layers of several kinds.
#include "bits/print.hpp"

int main() {
  const bool paper = test::bits::print<test::kept::Switch>("Switch");
  const bool hybrid = test::bits::print<test::kept::Hybrid>("Hybrid");
  return paper && hybrid ? 0 : 1;
}
