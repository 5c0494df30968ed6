#pragma once

#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/model/passes.hpp"

namespace moe_mamba {

/// The passes of a model on a CUDA device: declared for any compiler, defined in cuda.cuh.
template <class Definition, StorageScalar S>
struct PassesOf<Definition, S, cuda::Device> {
  static const Passes<Definition, S, cuda::Device>& get();
};

}  // namespace moe_mamba
