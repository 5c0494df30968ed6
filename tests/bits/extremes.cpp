// The smallest model, and one large enough for operations in blocks.
#include "bits/print.hpp"

int main() {
  const bool smallest = test::bits::print<test::kept::Smallest>("Smallest");
  const bool large = test::bits::print<test::kept::Large>("Large", {2, 300});
  return smallest && large ? 0 : 1;
}
