// expect: -ffast-math and -Ofast let the compiler assume that there is no NaN
#define __FAST_MATH__ 1  // as those options do
#include "moe_mamba/cpu/packet.hpp"
