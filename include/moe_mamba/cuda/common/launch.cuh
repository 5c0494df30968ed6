#pragma once

#include <cstddef>
#include <initializer_list>

#include "moe_mamba/cuda/check.hpp"
#include "moe_mamba/cuda/device.hpp"

/// Launches that overlap with the end of the previous kernel in the stream (programmatic dependent launch, compute
/// capability 9.0 and up): a kernel's blocks start, and may prefetch weights, while the previous kernel still runs.
/// With the many short kernels of a decoding step this is most of the time between them.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Waits until all that comes before in the stream is done and can be seen. The first thing that every thread of a
/// kernel that is launched by launch_dependent() does, before it returns or touches memory that a kernel writes; a
/// kernel that ended without it would let the next one begin too early.
__device__ __forceinline__ void await_stream() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// Lets the next kernel's blocks start as soon as all blocks of this one have got here; they wait for its end.
__device__ __forceinline__ void release_stream() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Whether any or all of the code that is compiled has await_stream()'s instruction: what is compiled for less than
/// compute capability 9.0 may run on later devices too, and must not begin early.
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

/// Whether the code of a kernel that the device was given does.
template <class Kernel>
bool awaits_stream(Kernel* kernel) {
  if constexpr (!some_code_awaits_stream || all_code_awaits_stream) return some_code_awaits_stream;
  cudaFuncAttributes code;
  check(cudaFuncGetAttributes(&code, kernel), "cudaFuncGetAttributes");
  return code.ptxVersion >= 90;
}

/// kernel<<<blocks, threads, shared>>>(arguments…) in the device's stream, as described above where the device can do
/// it.
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

/// Lets a kernel have `bytes` of shared memory, which may be more than the default limit of 48 KiB.
template <class Kernel>
void allow_shared(Kernel* kernel, std::size_t bytes) {
  if (bytes <= std::size_t{48} << 10) return;
  check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
