#pragma once

/// The second, deliberately naive implementation of every operation: plain loops in double, written from the formulas.
/// It is a backend like any other (its device is reference::Device), so layers and whole models run on it unchanged. It
/// is meant for reading and for comparisons, and is never optimised.

#include "moe_mamba/reference/activation.hpp"
#include "moe_mamba/reference/attention.hpp"
#include "moe_mamba/reference/causal_convolution.hpp"
#include "moe_mamba/reference/cross_entropy.hpp"
#include "moe_mamba/reference/device.hpp"
#include "moe_mamba/reference/dispatch.hpp"
#include "moe_mamba/reference/elementwise.hpp"
#include "moe_mamba/reference/embedding.hpp"
#include "moe_mamba/reference/linear.hpp"
#include "moe_mamba/reference/norm.hpp"
#include "moe_mamba/reference/optimizer.hpp"
#include "moe_mamba/reference/rotary.hpp"
#include "moe_mamba/reference/router.hpp"
#include "moe_mamba/reference/sampling.hpp"
#include "moe_mamba/reference/selective_scan.hpp"
