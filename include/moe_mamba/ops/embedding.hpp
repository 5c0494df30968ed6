#pragma once

#include "moe_mamba/core/view.hpp"

/// Embedding of tokens.
///
///   embed(device, tokens, weight, x)                     x[t] = weight[tokens[t]]           (V, D) → (T, D)
///   embed_backward(device, tokens, dx, dweight)          dweight[tokens[t]] += dx[t]
///
/// Tokens must be in 0 … V - 1, which is not checked here but by the library's entry points.
