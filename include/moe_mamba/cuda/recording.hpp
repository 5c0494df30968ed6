#pragma once

#include <utility>

#include "moe_mamba/cuda/device.hpp"

namespace moe_mamba::inline v0_2::cuda {

/// Work that is repeated with the same pointers and sizes: run directly the first time, captured as a CUDA graph the
/// second, and replayed by one launch from then on.
class Recording {
 public:
  Recording() = default;
  ~Recording() { forget(); }
  Recording(Recording&& other) noexcept { swap(other); }
  Recording& operator=(Recording&& other) noexcept {
    Recording moved(std::move(other));
    swap(moved);
    return *this;
  }

  /// work() must only enqueue kernels in the device's stream, and the same ones as in earlier calls since forget(). If
  /// the stream is already being captured, work() becomes part of that capture.
  template <class Work>
  void run(Device& device, const Work& work) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(device.stream(), &status), "cudaStreamIsCapturing");
    // The first run loads the kernels, which must not happen while capturing.
    if (status != cudaStreamCaptureStatusNone || !seen_) {
      work();
      seen_ = true;
      return;
    }
    if (graph_ == nullptr) record(device, work);
    check(cudaGraphLaunch(graph_, device.stream()), "cudaGraphLaunch");
  }

  /// Discards the recording: pointers, sizes or the work itself will change.
  void forget() noexcept {
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    graph_ = nullptr;
    seen_ = false;
  }

 private:
  template <class Work>
  void record(Device& device, const Work& work) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(device.stream(), &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
  }

  void swap(Recording& other) noexcept {
    std::swap(graph_, other.graph_);
    std::swap(seen_, other.seen_);
  }

  cudaGraphExec_t graph_ = nullptr;
  bool seen_ = false;
};

}  // namespace moe_mamba::inline v0_2::cuda
