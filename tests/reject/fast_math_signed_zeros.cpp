// expect: -ffast-math and -Ofast let the compiler assume that there is no NaN
#define __NO_SIGNED_ZEROS__ 1  // as -fno-signed-zeros does with g++
#include "moe_mamba/cpu/packet.hpp"
