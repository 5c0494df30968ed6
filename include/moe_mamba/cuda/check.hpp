#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <stdexcept>
#include <string>

#include "moe_mamba/core/standard.hpp"

/// Errors of CUDA's libraries as exceptions.
namespace moe_mamba::inline v0_2::cuda {

/// An error reported by a CUDA call: no device, out of memory, no kernel image for this device.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

namespace detail {

inline void throw_error(const char* call, const std::string& what) { throw Error(std::string(call) + ": " + what); }

}  // namespace detail

/// Throws Error, naming the call, unless it succeeded.
inline void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError();  // clears it, so that the next launch does not report it again
  std::string what = std::string(cudaGetErrorName(status)) + ", " + cudaGetErrorString(status);
  if (status == cudaErrorMemoryAllocation) what += "; a smaller batch or model needs less memory";
  if (status == cudaErrorNoKernelImageForDevice || status == cudaErrorUnsupportedPtxVersion) {
    what += "; compile for this device, as in nvcc -arch=native";
  }
  if (status == cudaErrorNoDevice || status == cudaErrorInsufficientDriver) {
    what += "; a CUDA device and a driver of CUDA's version or newer are needed";
  }
  detail::throw_error(call, what);
}
inline void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) detail::throw_error(call, cublasGetStatusString(status));
}

/// Throws Error if the preceding kernel launch failed, for instance for a bad configuration or a missing kernel image.
/// Does not wait for the kernel to run.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

}  // namespace moe_mamba::inline v0_2::cuda
