#pragma once

#include <optional>
#include <utility>

#include "moe_mamba/core/standard.hpp"

/// The backends that a model can be given as a template argument. Naming one costs nothing; its operations come with
/// moe_mamba.hpp (Cpu) and cuda.cuh (Cuda).
namespace moe_mamba::inline v0_2 {

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

/// A device whose threads each need scratch memory, which is then part of a workspace.
template <class Device>
concept HasThreadScratch = requires {
  typename Device::ScratchLoan;
  Device::thread_scratch_bytes;
};

/// How many threads a device uses, the caller's own included.
struct Threads {
  int count = 1;
};

/// The type of activations that go with parameters of type S on a backend; see compute_t.
template <class S, class Backend>
using activation_t = typename Backend::template Activation<S>;

/// The device that something runs on: the caller's, which must outlive it, or its own, constructed without arguments.
template <class Backend>
class DeviceHandle {
 public:
  DeviceHandle() : own_(std::in_place), device_(*own_) {}
  explicit DeviceHandle(Backend& device) : device_(device) {}
  DeviceHandle(const DeviceHandle&) = delete;
  DeviceHandle& operator=(const DeviceHandle&) = delete;

  Backend& operator*() const { return device_; }
  Backend* operator->() const { return &device_; }

 private:
  std::optional<Backend> own_;
  Backend& device_;
};

}  // namespace moe_mamba::inline v0_2
