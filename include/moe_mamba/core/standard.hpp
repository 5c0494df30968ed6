#pragma once

/// Every header includes this one first, before any code of the library (tests/style/check.sh rooms), so that a
/// compiler in the mode of an older standard has one mistake to report and not thousands.
#if __cplusplus <= 201703L
#error "moe_mamba is written in C++20, and this file is compiled as an older C++; allowed: -std=c++20 or later"
#include "moe_mamba: -std=c++20 or later"  // no such file, which ends the compilation, as no #error does
#endif
