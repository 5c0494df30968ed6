// Routers with selection biases, which are updated by the loads.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::SelectionBiases>("SelectionBiases") ? 0 : 1; }
