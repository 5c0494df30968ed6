#pragma once

#include <algorithm>
#include <vector>

#include "moe_mamba/cuda/device.hpp"
#include "support/data.hpp"

/// Memory and times for benchmarks on a CUDA device.
namespace benchmarks {

using namespace moe_mamba;

/// Device memory filled with random numbers, a million of them repeated.
template <class T>
class Filled {
 public:
  explicit Filled(Index count) : memory_(static_cast<std::size_t>(count) * sizeof(T)) {
    const Index block = std::min<Index>(count, 1 << 20);
    const auto values = test::uniform<T>(block, 1);
    for (Index at = 0; at < count; at += block) {
      const std::size_t bytes = static_cast<std::size_t>(std::min(block, count - at)) * sizeof(T);
      cuda::check(cudaMemcpy(data() + at, values.data(), bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    }
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data()); }

 private:
  cuda::Memory memory_;
};

/// Median milliseconds of one call.
template <class Call>
double milliseconds(cuda::Device& device, int repetitions, const Call& call) {
  cudaEvent_t begin, end;
  cuda::check(cudaEventCreate(&begin), "cudaEventCreate");
  cuda::check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int repetition = 0; repetition < repetitions + 2; ++repetition) {
    cuda::check(cudaEventRecord(begin, device.stream()), "cudaEventRecord");
    call();
    cuda::check(cudaEventRecord(end, device.stream()), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float time = 0;
    cuda::check(cudaEventElapsedTime(&time, begin, end), "cudaEventElapsedTime");
    if (repetition >= 2) times.push_back(time);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace benchmarks
