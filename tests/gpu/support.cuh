#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/cuda/device.hpp"
#include "support/data.hpp"

/// Shared by the tests of the GPU's operations. They are plain programs that print a line per group of checks, then the
/// counts.
namespace test::gpu {

using moe_mamba::Index;

/// Device memory for a vector, with guard bytes before and after it.
template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values)
      : count_(values.size()), memory_(2 * guard + (count_ * sizeof(T) + guard - 1) / guard * guard) {
    moe_mamba::cuda::check(cudaMemset(memory_.data(), mark, memory_.size()), "cudaMemset");
    moe_mamba::cuda::check(cudaMemcpy(data(), values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    // The copy may return before it is done, and the device's stream does not wait for it.
    moe_mamba::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  /// `bytes` uninitialised bytes.
  static Buffer scratch(std::size_t bytes) { return Buffer(std::vector<T>((bytes + sizeof(T) - 1) / sizeof(T), T{})); }

  T* data() const { return reinterpret_cast<T*>(memory_.data() + guard); }

  /// Waits for all earlier work.
  std::vector<T> values() const {
    std::vector<T> result(count_);
    moe_mamba::cuda::check(cudaMemcpy(result.data(), data(), count_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return result;
  }

  bool guards_hold() const {
    std::vector<unsigned char> bytes(memory_.size());
    moe_mamba::cuda::check(cudaMemcpy(bytes.data(), memory_.data(), bytes.size(), cudaMemcpyDeviceToHost),
                           "cudaMemcpy");
    const auto marked = [](unsigned char byte) { return byte == mark; };
    return std::all_of(bytes.begin(), bytes.begin() + guard, marked) &&
           std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(guard + count_ * sizeof(T)), bytes.end(), marked);
  }

 private:
  static constexpr std::size_t guard = 256;
  static constexpr int mark = 0xa5;

  std::size_t count_;
  moe_mamba::cuda::Memory memory_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Counts checks and reports those that failed.
class Checks {
 public:
  void check(bool holds, const std::string& what) {
    (holds ? passed_ : failed_) += 1;
    if (!holds) std::printf("FAILED: %s\n", what.c_str());
  }

  /// An error and its bound; NaN never passes. The largest ratio of an error to its bound is printed with the group.
  void within(double error, double bound, const std::string& what) {
    char numbers[64];
    std::snprintf(numbers, sizeof numbers, ": error %.3g, bound %.3g", error, bound);
    check(error <= bound, what + numbers);
    if (error / bound > worst_share_) worst_ = error, worst_share_ = error / bound, worst_name_ = what;
  }

  /// Prints the worst error since the last group.
  void group(const std::string& name) {
    std::printf("%-44s worst error %.2g, %.2f of its bound (%s)\n", name.c_str(), worst_, worst_share_,
                worst_name_.c_str());
    std::fflush(stdout);
    worst_ = worst_share_ = 0, worst_name_.clear();
  }

  /// The program's exit code.
  int finish() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  int passed_ = 0, failed_ = 0;
  double worst_ = 0, worst_share_ = 0;
  std::string worst_name_;
};

/// Runs the checks. Without a device, reports that and exits with 77, which test runners count as skipped.
template <class Body>
int run(const Body& body) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  try {
    Checks checks;
    body(checks);
    return checks.finish();
  } catch (const std::exception& error) {
    std::printf("FAILED: %s\n", error.what());
    return 1;
  }
}

/// Lengths of packed sequences: zero, one and those around tiles and segments; one far longer; only empty ones; and
/// more sequences than one launch takes.
inline std::vector<std::vector<Index>> packed_lengths() {
  std::vector<std::vector<Index>> all{
      {5, 1, 0, 33, 2, 300, 1, 64}, {0, 1031, 63, 65, 0}, {1, 1, 1}, {0, 0}, {129, 3}, {40}};
  std::vector<Index> many(300);
  moe_mamba::Random random(moe_mamba::Seed{7});
  for (Index& length : many) length = static_cast<Index>(random.below(9));
  many[170] = 200;
  all.push_back(many);
  return all;
}

template <class C, class S>
std::string types() {
  return std::string(sizeof(C) == 8   ? "double"
                     : sizeof(C) == 4 ? "float"
                                      : "bfloat16") +
         (sizeof(S) == 2           ? ", bfloat16 parameters"
          : sizeof(S) == sizeof(C) ? ""
                                   : ", other parameters");
}

}  // namespace test::gpu
