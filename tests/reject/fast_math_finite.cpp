// expect: -ffast-math and -Ofast let the compiler assume that there is no NaN
#undef __FINITE_MATH_ONLY__
#define __FINITE_MATH_ONLY__ 1  // as -ffinite-math-only does
#include "moe_mamba/cpu/packet.hpp"
