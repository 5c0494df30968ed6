#pragma once

/// Models on a CUDA device, as any C++20 compiler takes them: definitions, models, training, generation and files, but no
/// kernels. Those come from cuda.cuh, which nvcc has to compile, in one file of the program:
///
///   #include <moe_mamba/cuda.cuh>
///   template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cuda>;
///
/// Without that line the linker misses PassesOf<Net, float, cuda::Device>::get().

#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/recording.hpp"
#include "moe_mamba/generate/decoder.hpp"
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/generate/scorer.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/text.hpp"
#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"
#include "moe_mamba/version.hpp"
