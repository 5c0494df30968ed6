// Norms and activations.
#include "bits/print.hpp"

int main() {
  const bool activations = test::bits::print<test::kept::Activations>("Activations");
  const bool norms = test::bits::print<test::kept::Norms>("Norms");
  return activations && norms ? 0 : 1;
}
