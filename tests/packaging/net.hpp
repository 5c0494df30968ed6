#pragma once

#if defined(KERNELS_ELSEWHERE)
#include <moe_mamba/files.hpp>
#include <moe_mamba/inference.hpp>
#else
#include <moe_mamba/moe_mamba.hpp>
#endif

#include "definition.hpp"

/// The sum of the logits after one token.
double sum_of_logits(const moe_mamba::Model<Net>& model, moe_mamba::Token token);
