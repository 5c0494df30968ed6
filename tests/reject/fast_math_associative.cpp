// expect: -ffast-math and -Ofast let the compiler assume that there is no NaN
#define __ASSOCIATIVE_MATH__ 1  // as -funsafe-math-optimizations does with g++
#include "moe_mamba/cpu/packet.hpp"
