#pragma once

/// The operations on the CPU, and the passes of models, which call them. A file that includes this compiles the kernels of each
/// model that it uses; other files need not. See inference.hpp.

#include "moe_mamba/cpu/activation.hpp"
#include "moe_mamba/cpu/attention.hpp"
#include "moe_mamba/cpu/attention_backward.hpp"
#include "moe_mamba/cpu/causal_convolution.hpp"
#include "moe_mamba/cpu/cross_entropy.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/dispatch.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/cpu/embedding.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/cpu/norm.hpp"
#include "moe_mamba/cpu/optimizer.hpp"
#include "moe_mamba/cpu/rotary.hpp"
#include "moe_mamba/cpu/router.hpp"
#include "moe_mamba/cpu/selective_scan.hpp"
#include "moe_mamba/cpu/selective_scan_backward.hpp"
#include "moe_mamba/model/passes_definition.hpp"
