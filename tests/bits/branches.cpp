// Layers side by side, and with norms of their own.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::Branches>("Branches") ? 0 : 1; }
