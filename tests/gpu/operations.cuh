#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/reference.hpp"
#include "support/data.hpp"

/// An operation on a CUDA device against its reference in double: the same call on the same arrays.
namespace test {

using namespace moe_mamba;

/// Half a unit in the last place of 1, of the type that C is calculated in.
template <class C>
inline constexpr double rounding = std::numeric_limits<compute_t<C>>::epsilon() / 2;

/// Device memory with `guard` guard bytes before and after it.
template <class T>
class Guarded {
 public:
  explicit Guarded(const std::vector<T>& values)
      : memory_(values.size() * sizeof(T) + 2 * guard), size_(values.size()) {
    std::vector<unsigned char> bytes(memory_.size(), 0x5a);
    if (size_ > 0) std::memcpy(bytes.data() + guard, values.data(), size_ * sizeof(T));
    cuda::check(cudaMemcpy(memory_.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
    // The copy may return before it is done, and the device's stream does not wait for it.
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
  T* data() const { return reinterpret_cast<T*>(memory_.data() + guard); }

  /// The current contents; `intact` becomes false if a guard has changed.
  std::vector<T> read(bool& intact) const {
    std::vector<unsigned char> bytes(memory_.size());
    cuda::check(cudaMemcpy(bytes.data(), memory_.data(), bytes.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    for (std::size_t i = 0; i < guard; ++i) {
      intact = intact && bytes[i] == 0x5a && bytes[bytes.size() - 1 - i] == 0x5a;
    }
    std::vector<T> values(size_);
    if (size_ > 0) std::memcpy(static_cast<void*>(values.data()), bytes.data() + guard, size_ * sizeof(T));
    return values;
  }

 private:
  static constexpr std::size_t guard = 256;
  cuda::Memory memory_;
  std::size_t size_;
};

/// Scalars become double for the reference, indices are unchanged.
template <class T>
using Exact = std::conditional_t<std::is_integral_v<T>, T, double>;

template <class T>
std::vector<Exact<T>> exact(const std::vector<T>& values) {
  if constexpr (std::is_integral_v<T>) {
    return values;
  } else {
    return converted<double>(values);
  }
}

/// Largest difference over largest magnitude; indices must be equal, and so must the positions of NaNs. Values stored
/// as bfloat16 may also differ by their rounding.
template <class T>
double error(const std::vector<T>& actual, const std::vector<Exact<T>>& expected) {
  double difference = 0, magnitude = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if constexpr (std::is_integral_v<T>) {
      if (actual[i] != expected[i]) return std::numeric_limits<double>::infinity();
    } else {
      const auto a = static_cast<double>(actual[i]), e = expected[i];
      if (std::isnan(a) != std::isnan(e)) return std::numeric_limits<double>::infinity();
      if (std::isnan(a)) continue;
      const double allowed = std::is_same_v<T, bfloat16> ? std::abs(e) / 256 : 0.0;
      difference = std::max(difference, std::abs(a - e) - allowed);
      magnitude = std::max(magnitude, std::abs(e));
    }
  }
  return magnitude == 0 ? difference : difference / magnitude;
}

template <class T>
MatrixView<const T> fixed(const T* data, Index rows, Index columns) {
  return {data, rows, columns, columns};
}

/// Counts checks, and prints a line per group.
class Report {
 public:
  explicit Report(cuda::Device& device) : device_(device) {}

  void group(const std::string& name) {
    end_group();
    name_ = name;
  }

  /// call(device, pointers…) on copies of the arrays: twice on the device and once more as a graph, with equal bits and
  /// intact guards each time, and on the reference in double, with which every array must agree within `bound`.
  template <class... T, class Call>
  void check(const std::string& what, double bound, const std::tuple<std::vector<T>...>& arrays, const Call& call) {
    constexpr auto indices = std::index_sequence_for<T...>{};
    auto expected = std::apply([](const auto&... array) { return std::make_tuple(exact(array)...); }, arrays);
    reference::Device plain;
    std::apply([&](auto&... array) { call(plain, array.data()...); }, expected);
    bool intact = true;
    const auto first = run(arrays, call, false, intact);
    expect(what + ": guards", intact);
    double worst = 0;
    compare(first, expected, worst, indices);
    if (!(worst <= bound)) std::printf("  %s: error %.3g, allowed %.3g\n", what.c_str(), worst, bound);
    expect("", worst <= bound);
    worst_ = std::max(worst_, worst / bound);
    expect(what + ": the same bits again", same(first, run(arrays, call, false, intact), indices));
    expect(what + ": the same bits as a graph", same(first, run(arrays, call, true, intact), indices));
  }

  /// Two calls on copies of the same arrays, which must give equal bits.
  template <class... T, class Call, class Other>
  void same_bits(const std::string& what, const std::tuple<std::vector<T>...>& arrays, const Call& call,
                 const Other& other) {
    bool intact = true;
    const auto first = run(arrays, call, false, intact), second = run(arrays, other, false, intact);
    expect(what + ": the same bits", intact && same(first, second, std::index_sequence_for<T...>{}));
  }

  void expect(const std::string& what, bool holds) {
    ++checks_;
    if (holds) return;
    ++failures_;
    ++failed_;
    if (!what.empty()) std::printf("  failed: %s\n", what.c_str());
  }

  /// The program's exit code.
  int finish() {
    end_group();
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  template <class... T, class Call>
  std::tuple<std::vector<T>...> run(const std::tuple<std::vector<T>...>& arrays, const Call& call, bool as_graph,
                                    bool& intact) {
    auto copies = std::apply([](const auto&... array) { return std::make_tuple(Guarded<T>(array)...); }, arrays);
    const auto launch = [&] { std::apply([&](const auto&... copy) { call(device_, copy.data()...); }, copies); };
    if (as_graph) {
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      cuda::check(cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
      launch();
      cuda::check(cudaStreamEndCapture(device_.stream(), &graph), "cudaStreamEndCapture");
      cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
      cuda::check(cudaGraphLaunch(executable, device_.stream()), "cudaGraphLaunch");
      device_.synchronize();
      cudaGraphExecDestroy(executable);
      cudaGraphDestroy(graph);
    } else {
      launch();
      device_.synchronize();
    }
    return std::apply([&](const auto&... copy) { return std::make_tuple(copy.read(intact)...); }, copies);
  }

  template <class A, class E, std::size_t... i>
  static void compare(const A& actual, const E& expected, double& worst, std::index_sequence<i...>) {
    ((worst = std::max(worst, error(std::get<i>(actual), std::get<i>(expected)))), ...);
  }

  template <class A, std::size_t... i>
  static bool same(const A& a, const A& b, std::index_sequence<i...>) {
    return (... && (std::get<i>(a).empty() || std::memcmp(std::get<i>(a).data(), std::get<i>(b).data(),
                                                          std::get<i>(a).size() * sizeof(std::get<i>(a)[0])) == 0));
  }

  void end_group() {
    if (checks_ > 0) {
      std::printf("%-44s %4d checks, %d failed, worst error %.2f of the bound\n", name_.c_str(), checks_, failures_,
                  worst_);
    }
    passed_ += checks_ - failures_;
    checks_ = failures_ = 0;
    worst_ = 0;
  }

  cuda::Device& device_;
  std::string name_;
  int checks_ = 0, failures_ = 0, passed_ = 0, failed_ = 0;
  double worst_ = 0;
};

/// Runs a test's checks if there is a device. Exit codes: 0 passed, 1 failed, 77 skipped.
template <class Checks>
int run_checks(const Checks& checks, CudaOptions options = {}) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  try {
    cuda::Device device(options);
    Report report(device);
    checks(report);
    return report.finish();
  } catch (const std::exception& caught) {
    std::printf("failed: %s\n", caught.what());
    return 1;
  }
}

}  // namespace test
