#pragma once

struct CUstream_st;  // what a cudaStream_t points to

/// The backends that a model can be given as a template argument. Naming one costs nothing; its operations come with
/// moe_mamba.hpp (Cpu).
namespace moe_mamba {

namespace cpu {
class Device;
}

/// How many threads a device uses, the caller's own included.
struct Threads {
  int count = 1;
};

/// How floats are multiplied by floats on a CUDA device: as floats, or rounded to TF32 (ten bits behind the point instead
/// of 23) by tensor cores, which is several times as fast. Sums are in float either way, and other types not affected.
enum class FloatProducts { exact, tf32 };

/// What a CUDA device is constructed from: the stream that it puts its work into, one of its own where that is null.
struct CudaOptions {
  CUstream_st* stream = nullptr;
  FloatProducts products = FloatProducts::exact;
};

/// The CPU as a backend.
using Cpu = cpu::Device;

}  // namespace moe_mamba
