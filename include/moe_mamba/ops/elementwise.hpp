#pragma once

#include "moe_mamba/core/view.hpp"

/// Plain loops over matrices.
///
///   copy(device, x, y)              y = x
///   add(device, x, y)               y += x
///   fill(device, value, y)          y = value
///   scale(device, factor, y)        y *= factor
///   squared_error(device, x, target, scale, dx, sum)   *sum = Σ (x - target)², in double;
///                                                      dx = 2 · scale · (x - target) unless dx is null
