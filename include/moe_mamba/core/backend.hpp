#pragma once

#include <type_traits>

#include "moe_mamba/core/standard.hpp"

struct CUstream_st;  // what a cudaStream_t points to

/// The backends that a model can be given as a template argument. Naming one costs nothing; its operations come with
/// moe_mamba.hpp (Cpu) and cuda.cuh (Cuda).
namespace moe_mamba {

namespace cpu {
class Device;
}
namespace cuda {
class Device;
}

/// The CPU as a backend.
using Cpu = cpu::Device;

/// A CUDA device as a backend.
using Cuda = cuda::Device;

/// How many threads a device uses, the caller's own included.
struct Threads {
  int count = 1;
};

/// How floats are multiplied by floats on a CUDA device: as floats, or rounded to TF32 (ten bits behind the point instead
/// of 23) by tensor cores, which is several times as fast. Sums are in float either way, and other types not affected.
enum class FloatProducts { exact, tf32 };

/// What a CUDA device is constructed from.
struct CudaOptions {
  CUstream_st* stream = nullptr;  ///< the caller's, which must outlive the device; null: one of its own
  FloatProducts products = FloatProducts::exact;
};

/// The type of activations that go with parameters of type S on a backend; see compute_t.
template <class S, class Backend>
using activation_t = typename Backend::template Activation<S>;

/// A device of a backend, from what of this it knows.
template <class Backend>
Backend open_device(int threads, const CudaOptions& cuda) {
  if constexpr (std::is_constructible_v<Backend, Threads>) {
    return Backend(Threads{threads});
  } else if constexpr (std::is_constructible_v<Backend, CudaOptions>) {
    return Backend(cuda);
  } else {
    return Backend();
  }
}

}  // namespace moe_mamba
