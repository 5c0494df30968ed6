#pragma once

/// Files: models, training checkpoints, texts. The reader is in io/safetensors_reader.hpp, to be included in the same file, or in
/// one file of the program that instantiates it:
///
///   #include <moe_mamba/io/safetensors_reader.hpp>
///   template struct moe_mamba::SafetensorsReader<moe_mamba::SafetensorsContents>;

#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/text.hpp"
