// Mamba layers by themselves.
#include "bits/print.hpp"

int main() {
  const bool sizes = test::bits::print<test::kept::MambaSizes>("MambaSizes");
  const bool biases = test::bits::print<test::kept::MambaBiases>("MambaBiases");
  return sizes && biases ? 0 : 1;
}
