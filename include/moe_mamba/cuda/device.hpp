#pragma once

#include <cstddef>
#include <utility>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/check.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// How products of floats are computed on a CUDA device: exactly as floats, or with operands rounded to TF32 (10-bit
/// mantissa instead of 23) on tensor cores, which is several times as fast. Sums are in float either way; other types
/// are not affected.
enum class FloatProducts { exact, tf32 };

/// The options of a CUDA device.
struct CudaOptions {
  cudaStream_t stream = nullptr;  ///< must outlive the device; null: the device creates its own
  FloatProducts products = FloatProducts::exact;
};

}  // namespace moe_mamba::inline v0_2

namespace moe_mamba::inline v0_2::cuda {

/// An owned block of uninitialised device memory.
class Memory {
 public:
  Memory() = default;

  /// Aligned to 256 bytes. Throws Error. Allocates with cudaMalloc, which may synchronise the device: never within a
  /// step.
  explicit Memory(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) check(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), "cudaMalloc");
  }
  ~Memory() { cudaFree(data_); }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    Memory moved(std::move(other));
    swap(moved);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

  static constexpr bool on_host = false;

  /// Copy `bytes` bytes from host to device memory, from device to host memory or within device memory, or clear them,
  /// and return when that is done.
  static void write(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, cudaMemcpyHostToDevice); }
  static void read(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, cudaMemcpyDeviceToHost); }
  static void copy(void* to, const void* from, std::size_t bytes) { copy(to, from, bytes, cudaMemcpyDeviceToDevice); }
  static void clear(void* to, std::size_t bytes) {
    check(cudaMemsetAsync(to, 0, bytes, cudaStreamPerThread), "cudaMemsetAsync");
    check(cudaStreamSynchronize(cudaStreamPerThread), "cudaStreamSynchronize");
  }

 private:
  static void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, cudaStreamPerThread), "cudaMemcpyAsync");
    check(cudaStreamSynchronize(cudaStreamPerThread), "cudaStreamSynchronize");
  }

  void swap(Memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Recording;

/// Where the operations of this folder run: a stream of a CUDA device, with a cuBLAS handle and scratch memory.
///
/// Every operation takes a device as its first argument, enqueues its kernels in the stream and returns without
/// waiting; pointers are to device memory unless a contract says otherwise. Nothing is allocated after construction, so
/// a sequence of operations can be captured as a graph. A device serves one caller at a time; programs that run several
/// models concurrently give each its own.
class Device {
 public:
  using Memory = cuda::Memory;
  template <class S>
  using Activation = S;
  using Recording = cuda::Recording;

  /// Bytes of the device's own scratch memory: enough for several thousand rows of activations converted to the type of
  /// the weights, which keeps products at full speed.
  static constexpr std::size_t scratch_bytes = std::size_t{128} << 20;

  /// Throws Error.
  explicit Device(CudaOptions options = {})
      : stream_(options.stream), owns_(options.stream == nullptr), products_(options.products) {
    if (owns_) check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    try {
      int index = 0;
      check(cudaGetDevice(&index), "cudaGetDevice");
      check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
      check(cudaDeviceGetAttribute(&shared_bytes_, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
            "cudaDeviceGetAttribute");
      check(cudaDeviceGetAttribute(&capability_, cudaDevAttrComputeCapabilityMajor, index), "cudaDeviceGetAttribute");
      if (capability_ == 9) {
        cudaDriverEntryPointQueryResult found;
        check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &tensor_map_encoder_, 12000, cudaEnableDefault,
                                               &found),
              "cudaGetDriverEntryPointByVersion");
        if (found != cudaDriverEntryPointSuccess) {
          detail::throw_error("cuTensorMapEncodeTiled",
                              "the driver does not have it; one of CUDA 12.0 or newer is needed");
        }
      }
      check(cublasCreate(&blas_), "cublasCreate");
      check(cublasSetStream(blas_, stream_), "cublasSetStream");
      blas_workspace_ = Memory(std::size_t{32} << 20);
      check(cublasSetWorkspace(blas_, blas_workspace_.data(), blas_workspace_.size()), "cublasSetWorkspace");
      scratch_ = Memory(scratch_bytes);
    } catch (...) {
      release();
      throw;
    }
  }
  ~Device() { release(); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// Whether a call on a model is running here; see core/exclusive_call.hpp.
  ExclusiveCall::Flag& in_use() const { return in_use_; }

  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas() const { return blas_; }
  FloatProducts products() const { return products_; }
  /// Streaming multiprocessors, for grids that fill the device once.
  int processors() const { return processors_; }
  /// The most shared memory that a block can have, in bytes.
  std::size_t shared_bytes() const { return static_cast<std::size_t>(shared_bytes_); }
  /// Whether a kernel can be launched before the previous one has ended; see cuda/common/launch.cuh.
  bool launches_dependents() const { return capability_ >= 9; }
  /// The driver's cuTensorMapEncodeTiled if the device is of compute capability 9.x, otherwise null.
  void* tensor_map_encoder() const { return tensor_map_encoder_; }
  /// Memory that an operation may use while it runs; operations in the stream do not overlap.
  std::byte* scratch() const { return scratch_.data(); }

  /// Enqueue a copy between host and device memory in the stream. upload() may return before the copy is done;
  /// download() returns after it.
  void upload(void* to, const void* from, std::size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream_), "cudaMemcpyAsync");
  }
  void download(void* to, const void* from, std::size_t bytes) const {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    synchronize();
  }

  /// Waits until everything put into the stream is done.
  void synchronize() const { check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
  void release() noexcept {
    if (blas_ != nullptr) cublasDestroy(blas_);
    if (owns_ && stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  mutable ExclusiveCall::Flag in_use_;
  cudaStream_t stream_ = nullptr;
  bool owns_ = false;
  FloatProducts products_ = FloatProducts::exact;
  int processors_ = 0, capability_ = 0, shared_bytes_ = 0;
  void* tensor_map_encoder_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  Memory blas_workspace_;
  Memory scratch_;
};

}  // namespace moe_mamba::inline v0_2::cuda
