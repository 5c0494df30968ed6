#pragma once

/// The kernels of models on a CUDA device, for nvcc: everything of cuda.hpp but files, and what the passes of a model
/// consist of. A program may be one .cu file that includes this, or have one such file beside others with cuda.hpp.

#include "moe_mamba/cuda/activation.cuh"
#include "moe_mamba/cuda/attention/backward.cuh"
#include "moe_mamba/cuda/attention/forward.cuh"
#include "moe_mamba/cuda/causal_convolution/backward.cuh"
#include "moe_mamba/cuda/causal_convolution/forward.cuh"
#include "moe_mamba/cuda/cross_entropy.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/dispatch.cuh"
#include "moe_mamba/cuda/elementwise.cuh"
#include "moe_mamba/cuda/embedding.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"
#include "moe_mamba/cuda/norm/layer_norm.cuh"
#include "moe_mamba/cuda/norm/rms_norm.cuh"
#include "moe_mamba/cuda/optimizer.cuh"
#include "moe_mamba/cuda/recording.hpp"
#include "moe_mamba/cuda/rotary.cuh"
#include "moe_mamba/cuda/router.cuh"
#include "moe_mamba/cuda/sampling/sampling.cuh"
#include "moe_mamba/cuda/selective_scan/selective_scan.cuh"
#include "moe_mamba/model/passes_definition.hpp"
#include "moe_mamba/training.hpp"

namespace moe_mamba::inline v0_2 {

template <class Definition, StorageScalar S>
const Passes<Definition, S, cuda::Device>& PassesOf<Definition, S, Cuda>::get() {
  static constexpr auto table = PassesDefinition<Definition, S, cuda::Device>::table();
  return table;
}

}  // namespace moe_mamba::inline v0_2
