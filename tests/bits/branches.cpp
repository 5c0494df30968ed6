// Parallel layers, and layers with their own norms.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::Branches>("Branches") ? 0 : 1; }
