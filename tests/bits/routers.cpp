// Every kind of router.
#include "bits/print.hpp"

int main() { return test::bits::print<test::kept::Routers>("Routers") ? 0 : 1; }
