#pragma once

/// inference.hpp and training, without files and kernels.

#include "moe_mamba/inference.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"
