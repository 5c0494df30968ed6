// What clang-tidy reads: the whole library.
#include "moe_mamba/moe_mamba.hpp"
