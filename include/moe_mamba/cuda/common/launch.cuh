#pragma once

#include <cstddef>
#include <initializer_list>

#include "moe_mamba/cuda/check.hpp"
#include "moe_mamba/cuda/device.hpp"

/// Launches that overlap with the end of the previous kernel in the stream (programmatic dependent launch, compute
/// capability 9.0 and up): a kernel's blocks start, and may prefetch weights, while the previous kernel still runs.
/// This hides most of the launch latency between the many short kernels of a decoding step.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Waits until all earlier work in the stream is complete and its writes are visible. Every thread of a kernel that is
/// launched by launch_dependent() must call it before it returns or touches memory that a kernel writes; a kernel that
/// ended without it would let the next one start too early.
__device__ __forceinline__ void await_stream() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks start once all blocks of this one have called it; they then wait for its end.
__device__ __forceinline__ void release_stream() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Whether any or all of the targets compiled for have await_stream()'s instruction: code for targets below compute
/// capability 9.0 may run on later devices too, and must not start early there.
#if defined(__CUDA_ARCH_LIST__)
inline constexpr bool some_code_awaits_stream = [] {
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    if (architecture >= 900) return true;
  }
  return false;
}();
inline constexpr bool all_code_awaits_stream = [] {
  for (const int architecture : {__CUDA_ARCH_LIST__}) {
    if (architecture < 900) return false;
  }
  return true;
}();
#else
inline constexpr bool some_code_awaits_stream = false, all_code_awaits_stream = false;
#endif

/// Whether the code of a kernel that is loaded on the device has it.
template <class Kernel>
bool awaits_stream(Kernel* kernel) {
  if constexpr (!some_code_awaits_stream || all_code_awaits_stream) return some_code_awaits_stream;
  cudaFuncAttributes code;
  check(cudaFuncGetAttributes(&code, kernel), "cudaFuncGetAttributes");
  return code.ptxVersion >= 90;
}

/// kernel<<<blocks, threads, shared>>>(arguments…) in the device's stream, with the overlap described above if the
/// device supports it.
template <class... Parameters, class... Arguments>
void launch_dependent(Device& device, void (*kernel)(Parameters...), dim3 blocks, dim3 threads, std::size_t shared,
                      const Arguments&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t configuration{};
  configuration.gridDim = blocks;
  configuration.blockDim = threads;
  configuration.dynamicSmemBytes = shared;
  configuration.stream = device.stream();
  configuration.attrs = &attribute;
  configuration.numAttrs = device.launches_dependents() && awaits_stream(kernel) ? 1 : 0;
  check(cudaLaunchKernelEx(&configuration, kernel, static_cast<Parameters>(arguments)...), "cudaLaunchKernelEx");
}

/// Allows a kernel `bytes` of dynamic shared memory, which may exceed the default limit of 48 KiB.
template <class Kernel>
void allow_shared(Kernel* kernel, std::size_t bytes) {
  if (bytes <= std::size_t{48} << 10) return;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
