// Routers whose selection biases follow the loads.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::SelectionBiases>("SelectionBiases") ? 0 : 1; }
