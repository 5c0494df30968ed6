#pragma once

#if defined(MOE_MAMBA_TEST_CUDA)
#include "moe_mamba/cuda.hpp"
#include "moe_mamba/model/passes_definition.hpp"
#else
#include "moe_mamba/moe_mamba.hpp"
#endif

/// The backend under test: the Cpu or, with MOE_MAMBA_TEST_CUDA, with which the gpu.* tests compile the same sources, a
/// CUDA device. Their kernels are in tests/gpu/passes.
namespace test {

#if defined(MOE_MAMBA_TEST_CUDA)
using Backend = moe_mamba::Cuda;
#else
using Backend = moe_mamba::Cpu;
#endif

inline constexpr bool on_host = Backend::Memory::on_host;

/// A device to run on, with `threads` threads if it has threads.
template <class Device = Backend>
Device open(int threads = 1) {
  if constexpr (on_host) {
    return Device(moe_mamba::Threads{threads});
  } else {
    return Device();
  }
}

/// Waits until all work in a device's stream is done.
template <class Device>
void wait(Device& device) {
  if constexpr (!on_host) device.synchronize();
}

template <class Definition, class S = float>
using ModelOf = moe_mamba::Model<Definition, S, Backend>;

/// All parameters of a model, copied from wherever they are.
template <class Definition, class S, class B>
std::vector<S> numbers(const moe_mamba::Model<Definition, S, B>& model) {
  std::vector<S> values(static_cast<std::size_t>(Definition::parameters));
  model.read(values);
  return values;
}
template <class Definition, class S, class Memory>
auto numbers(const moe_mamba::States<Definition, S, Memory>& states) {
  std::vector<moe_mamba::compute_t<S>> values(static_cast<std::size_t>(states.count() * states.state_size));
  states.read(values);
  return values;
}

}  // namespace test
