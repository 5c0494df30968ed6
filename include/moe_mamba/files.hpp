#pragma once

/// Files: models, training checkpoints, texts.

#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/text.hpp"
