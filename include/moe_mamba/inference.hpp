#pragma once

/// Definitions, models on the CPU, running states, generation and scores: without training, files and kernels. It compiles
/// without exceptions too (-fno-exceptions), where an error ends the program with its text. The kernels are in kernels.hpp: in the same file, or in one file of the program, which says what it holds:
///
///   #include <moe_mamba/kernels.hpp>
///   template struct moe_mamba::PassesOf<Net, float, moe_mamba::Cpu>;
///
/// Without either the linker misses PassesOf<Net, float, cpu::Device>::get().

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
