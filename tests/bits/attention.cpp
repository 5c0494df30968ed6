// Attention by itself.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::AttentionKinds>("AttentionKinds") ? 0 : 1; }
