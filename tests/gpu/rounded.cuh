#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gpu/support.cuh"
#include "moe_mamba/core/scalar.hpp"

/// Outputs of operations whose activations may be bfloat16 while their states and sums are not.
namespace test::gpu {

using moe_mamba::compute_t;

/// The outputs of an operation, by name.
template <class C>
struct Results {
  std::map<std::string, std::vector<C>> activations;
  std::map<std::string, std::vector<compute_t<C>>> sums;  // states, checkpoints and gradients of parameters

  /// each(name, values) for all outputs.
  template <class Each>
  void each(const Each& call) const {
    for (const auto& [name, values] : activations) call(name, values);
    for (const auto& [name, values] : sums) call(name, values);
  }

  std::vector<double> numbers(const std::string& name) const {
    const auto found = activations.find(name);
    return found != activations.end() ? test::converted<double>(found->second) : test::converted<double>(sums.at(name));
  }

  bool same_bits(const std::string& name, const Results& other) const {
    const auto found = activations.find(name);
    return found != activations.end() ? test::gpu::same_bits(found->second, other.activations.at(name))
                                      : test::gpu::same_bits(sums.at(name), other.sums.at(name));
  }
};

/// Device memory for all outputs.
template <class C>
class ResultBuffers {
 public:
  explicit ResultBuffers(const Results<C>& before) {
    for (const auto& [name, values] : before.activations) activations_.emplace(name, values);
    for (const auto& [name, values] : before.sums) sums_.emplace(name, values);
  }

  C* activation(const std::string& name) const { return activations_.at(name).data(); }
  compute_t<C>* sum(const std::string& name) const { return sums_.at(name).data(); }

  Results<C> values(Checks& checks) const {
    Results<C> results;
    for (const auto& [name, buffer] : activations_) results.activations[name] = take(name, buffer, checks);
    for (const auto& [name, buffer] : sums_) results.sums[name] = take(name, buffer, checks);
    return results;
  }

 private:
  template <class T>
  static std::vector<T> take(const std::string& name, const Buffer<T>& buffer, Checks& checks) {
    checks.check(buffer.guards_hold(), "guards of " + name);
    return buffer.values();
  }

  std::map<std::string, Buffer<C>> activations_;
  std::map<std::string, Buffer<compute_t<C>>> sums_;
};

/// relative_error of results that were rounded to T once: the part of a difference beyond half a unit in the last
/// place.
template <class T>
double error_beyond_rounding(std::vector<double> actual, const std::vector<double>& expected) {
  if constexpr (std::is_same_v<T, moe_mamba::bfloat16>) {
    for (std::size_t i = 0; i < actual.size() && i < expected.size(); ++i) {
      const double a = actual[i], e = expected[i], largest = std::max(std::abs(a), std::abs(e));
      if (std::isnan(a) || std::isnan(e) || largest == 0) continue;
      const double half = std::ldexp(1.0, std::ilogb(largest) - 8);
      actual[i] = std::abs(a - e) <= half ? e : a > e ? a - half : a + half;
    }
  }
  return test::relative_error(actual, expected);
}

}  // namespace test::gpu
