#pragma once

/// Files: models, checkpoints of a training, texts. Their reader is compiled where io/safetensors_reader.hpp is
/// included: in the same file, or in one file of the program, which says that it holds it:
///
///   #include <moe_mamba/io/safetensors_reader.hpp>
///   template struct moe_mamba::SafetensorsReader<moe_mamba::SafetensorsContents>;

#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/text.hpp"
