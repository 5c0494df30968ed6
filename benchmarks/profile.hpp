#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "harness.hpp"
#include "moe_mamba/moe_mamba.hpp"

/// Profiles a whole model: a device whose operations are the CPU's, each with a timer. A model takes it as its backend,
/// like any other.
namespace benchmarks::profiled {

using moe_mamba::Index;

enum class Part { products, experts, head, scan, convolution, norms, elementwise, routing, embedding, optimizer };

inline constexpr std::array part_names = {"products", "experts' products", "head and loss", "scan",      "convolution",
                                          "norms",    "elementwise",       "routing",       "embedding", "optimizer"};

class Device : public moe_mamba::cpu::Device {
 public:
  using moe_mamba::cpu::Device::Device;

  /// Runs f and records its time.
  template <class F>
  auto timed(Part part, const F& f) {
    struct Booking {
      double& seconds;
      double begin = now();
      ~Booking() { seconds += now() - begin; }
    } booking{seconds_[static_cast<std::size_t>(part)]};
    return f(static_cast<moe_mamba::cpu::Device&>(*this));
  }

  /// Shares of the time of f(); time outside operations comes last.
  template <class F>
  std::vector<Share> profile(const F& f) {
    f();
    seconds_ = {};
    const double begin = now();
    f();
    const double whole = now() - begin;
    std::vector<Share> shares;
    double rest = 1;
    for (std::size_t part = 0; part < seconds_.size(); ++part) {
      shares.push_back({part_names[part], seconds_[part] / whole});
      rest -= shares.back().share;
    }
    shares.push_back({"between operations", rest});
    return shares;
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  std::array<double, part_names.size()> seconds_{};
};

// Every operation, found by argument-dependent lookup, forwards its arguments to the CPU's.

template <class... Arguments>
void linear(Device& device, Arguments&&... arguments) {
  device.timed(Part::products, [&](auto& cpu) { linear(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void linear_backward_input(Device& device, Arguments&&... arguments) {
  device.timed(Part::products, [&](auto& cpu) { linear_backward_input(cpu, std::forward<Arguments>(arguments)...); });
}
template <class S, class... Arguments>
void linear_backward_weight(Device& device, Arguments&&... arguments) {
  device.timed(Part::products,
               [&](auto& cpu) { linear_backward_weight<S>(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void grouped_linear(Device& device, Arguments&&... arguments) {
  device.timed(Part::experts, [&](auto& cpu) { grouped_linear(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void grouped_linear_backward_input(Device& device, Arguments&&... arguments) {
  device.timed(Part::experts,
               [&](auto& cpu) { grouped_linear_backward_input(cpu, std::forward<Arguments>(arguments)...); });
}
template <class S, class... Arguments>
void grouped_linear_backward_weight(Device& device, Arguments&&... arguments) {
  device.timed(Part::experts,
               [&](auto& cpu) { grouped_linear_backward_weight<S>(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void head_cross_entropy(Device& device, Arguments&&... arguments) {
  device.timed(Part::head, [&](auto& cpu) { head_cross_entropy(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void selective_scan(Device& device, Arguments&&... arguments) {
  device.timed(Part::scan, [&](auto& cpu) { selective_scan(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void selective_scan_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::scan, [&](auto& cpu) { selective_scan_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void causal_convolution(Device& device, Arguments&&... arguments) {
  device.timed(Part::convolution, [&](auto& cpu) { causal_convolution(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void causal_convolution_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::convolution,
               [&](auto& cpu) { causal_convolution_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void rms_norm(Device& device, Arguments&&... arguments) {
  device.timed(Part::norms, [&](auto& cpu) { rms_norm(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void rms_norm_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::norms, [&](auto& cpu) { rms_norm_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void activate(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { activate(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void activate_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { activate_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void grouped_activate(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { grouped_activate(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void grouped_activate_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise,
               [&](auto& cpu) { grouped_activate_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void copy(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { copy(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void add(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { add(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void fill(Device& device, Arguments&&... arguments) {
  device.timed(Part::elementwise, [&](auto& cpu) { fill(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void route(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { route(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void router_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { router_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void group_tokens(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { group_tokens(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void gather_rows(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { gather_rows(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void combine_rows(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { combine_rows(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void combine_rows_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::routing, [&](auto& cpu) { combine_rows_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void embed(Device& device, Arguments&&... arguments) {
  device.timed(Part::embedding, [&](auto& cpu) { embed(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void embed_backward(Device& device, Arguments&&... arguments) {
  device.timed(Part::embedding, [&](auto& cpu) { embed_backward(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void sum_of_squares(Device& device, Arguments&&... arguments) {
  device.timed(Part::optimizer, [&](auto& cpu) { sum_of_squares(cpu, std::forward<Arguments>(arguments)...); });
}
template <class... Arguments>
void adamw(Device& device, Arguments&&... arguments) {
  device.timed(Part::optimizer, [&](auto& cpu) { adamw(cpu, std::forward<Arguments>(arguments)...); });
}

}  // namespace benchmarks::profiled
