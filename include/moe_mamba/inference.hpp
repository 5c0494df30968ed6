#pragma once

/// Definitions, models on the CPU, running states, generation and scores, without training, files and kernels. Also compiles
/// without exceptions (-fno-exceptions): an error then ends the program with its message. The kernels are in kernels.hpp, to be
/// included in the same file, or in one file of the program that instantiates them:
///
///   #include <moe_mamba/kernels.hpp>
///   template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cpu>;
///
/// Without either, the linker reports that PassesOf<Net, float, cpu::Device>::get() is undefined.

#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/generate/decoder.hpp"
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/generate/scorer.hpp"
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
#include "moe_mamba/model/session.hpp"
#include "moe_mamba/text/tokenizer.hpp"
#include "moe_mamba/version.hpp"
