// expect: -ffast-math and -Ofast let the compiler assume that there is no NaN
#define __RECIPROCAL_MATH__ 1  // as -freciprocal-math does with g++
#include "moe_mamba/cpu/packet.hpp"
