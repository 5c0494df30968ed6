#pragma once

/// The tokenizers of public checkpoints. A separate component, as it needs utf8proc: target moe_mamba::tokenizers.

#include "moe_mamba/text/tokenizer.hpp"
#include "moe_mamba/tokenizers/bpe_tokenizer.hpp"
