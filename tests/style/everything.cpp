// The input of clang-tidy: the whole library.
#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"
#if __has_include(<utf8proc.h>)
#include "moe_mamba/tokenizers.hpp"
#endif
