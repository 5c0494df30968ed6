// The main() of the tests if Catch2 does not provide one (version 2).
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
