#pragma once

/// Every header of the library includes this one before any other code of the library, so that a compiler which is set to
/// an older standard says so once, and not thousands of times what it does not understand.
#if __cplusplus < 202002L
#error "moe_mamba: the headers are C++20, and the compiler is set to an older standard; allowed: -std=c++20 or later"
// #error does not stop a compiler; a header that is missing does.
#include "moe_mamba needs -std=c++20 or later"
#endif
