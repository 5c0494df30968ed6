// flags: -std=c++17
// expect: moe_mamba is written in C\+\+20, and this file is compiled as an older C\+\+; allowed: -std=c\+\+20 or later
// errors: 2
#include "moe_mamba/moe_mamba.hpp"

constexpr auto parameters = moe_mamba::cost<moe_mamba::Mamba<>>.parameters;
