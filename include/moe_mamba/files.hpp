#pragma once

/// Files: models, checkpoints of a training, texts.

#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/text.hpp"
