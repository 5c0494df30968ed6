// Mixtures of experts.
#include "bits/print.hpp"

int main() {
  const bool several = test::bits::print<test::kept::SeveralExperts>("SeveralExperts");
  const bool limited = test::bits::print<test::kept::LimitedExperts>("LimitedExperts");
  return several && limited ? 0 : 1;
}
