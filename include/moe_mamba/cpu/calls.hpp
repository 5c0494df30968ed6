#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>
#include <string>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/cpu/norm.hpp"
#include "moe_mamba/cpu/router.hpp"
#include "moe_mamba/cpu/selective_scan.hpp"

/// Single operations on the caller's arrays, each one call that checks sizes: for users who want the scan, the norm or
/// the router without a model. Contracts and formulas are those of ops/. They allocate nothing beyond what
/// Device::reserve_thread_scratch() does. Like a model's calls they occupy the device: during another call, for
/// instance from within a layer, they throw std::logic_error and have no effect.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Throws unless `size` is `rows` times `columns`, a product that may overflow an Index.
inline void require_size(const char* name, std::size_t size, Index rows, Index columns = 1) {
  Index wanted = 0;
  if (__builtin_mul_overflow(rows, columns, &wanted)) wanted = std::numeric_limits<Index>::max();
  require(static_cast<Index>(size) == wanted, name, size, [&] { return std::to_string(wanted) + " numbers"; });
}

}  // namespace detail

/// The inputs of a selective scan over B sequences of L steps, with E channels of N states each.
template <ComputeScalar C>
struct ScanInputs {
  std::span<const C> u;           // (B, L, E)
  std::span<const C> delta;       // (B, L, E), before bias and softplus
  std::span<const C> b;           // (B, L, N)
  std::span<const C> c;           // (B, L, N)
  std::span<const C> z;           // (B, L, E), before silu
  std::span<const C> delta_bias;  // (E); its size is the number of channels
  std::span<const C> a_log;       // (E, N)
  std::span<const C> d;           // (E)
};

/// Computes y, (B, L, E). `states`, (B, N, E), are the initial states on entry and the final ones on return; empty to
/// start from zero and discard the final ones. Throws std::invalid_argument if the sizes do not match.
template <ComputeScalar C, int N>
void selective_scan(Device& device, Shape shape, const ScanInputs<C>& inputs, std::span<C> states, std::span<C> y) {
  const ExclusiveCall call(device.in_use(), "device");
  require(shape.lengths == nullptr && shape.batch >= 0 && shape.length >= 0, "shape", "packed or negative",
          "sequences of one length, with batch >= 0 and length >= 0");
  constexpr Index most = Index{1} << 40;
  require(shape.batch <= most && shape.length <= most / std::max<Index>(shape.batch, 1), "shape.tokens()",
          "more than 2^40", "2^40 or fewer");
  const Index tokens = shape.tokens(), channels = static_cast<Index>(inputs.delta_bias.size());
  const auto rows = [&](const char* name, std::span<const C> values, Index columns) {
    detail::require_size(name, values.size(), tokens, columns);
    return matrix(values.data(), tokens, columns);
  };
  detail::require_size("a_log", inputs.a_log.size(), channels, N);
  detail::require_size("d", inputs.d.size(), channels);
  if (!states.empty()) detail::require_size("states", states.size(), shape.batch, channels * N);
  detail::require_size("y", y.size(), tokens, channels);
  selective_scan(device, SelectiveScan<C, C, N>{.shape = shape,
                                                .u = rows("u", inputs.u, channels),
                                                .delta = rows("delta", inputs.delta, channels),
                                                .b = rows("b", inputs.b, N),
                                                .c = rows("c", inputs.c, N),
                                                .z = rows("z", inputs.z, channels),
                                                .delta_bias = inputs.delta_bias.data(),
                                                .a_log = inputs.a_log.data(),
                                                .d = inputs.d.data(),
                                                .state = {states.data(), channels * N},
                                                .checkpoints = nullptr,
                                                .y = matrix(y.data(), tokens, channels),
                                                .scratch = {}});
}

/// y = x / sqrt(mean(x²) + epsilon) · gain, for each row of gain.size() numbers; y may be x. Throws
/// std::invalid_argument if the sizes do not match.
template <ComputeScalar C>
void rms_norm(Device& device, std::span<const C> x, std::span<const C> gain, double epsilon, std::span<C> y) {
  const ExclusiveCall call(device.in_use(), "device");
  const auto columns = static_cast<Index>(gain.size());
  require(columns >= 1, "gain", gain.size(), "1 number or more");
  const auto count = static_cast<Index>(x.size());
  require(count % columns == 0, "x", count, [&] { return "a multiple of " + std::to_string(columns) + " numbers"; });
  detail::require_size("y", y.size(), count);
  std::array<C, 256> inverse;
  constexpr auto most = static_cast<Index>(inverse.size());
  for (Index row = 0; row < count / columns; row += most) {
    const Index rows = std::min(most, count / columns - row);
    rms_norm(device, matrix(x.data() + row * columns, rows, columns), gain.data(), epsilon,
             matrix(y.data() + row * columns, rows, columns), inverse.data());
  }
}

/// The outputs of a router for T tokens, each routed to K of E experts.
template <ComputeScalar C>
struct RouterOutputs {
  std::span<C> probabilities;  // (T, E)
  std::span<C> log_sum_exp;    // (T), of the logits
  std::span<Index> experts;    // (T, K), best first
  std::span<C> gates;          // (T, K)
  std::span<double> load;      // (E): tokens assigned to each expert
};

/// Chooses experts from logits, (T, E). Throws std::invalid_argument if the sizes do not match.
template <ComputeScalar C, int E, int K>
RouterMeans route(Device& device, std::span<const C> logits, GateOrder order, const RouterOutputs<C>& outputs) {
  const ExclusiveCall call(device.in_use(), "device");
  const auto tokens = static_cast<Index>(outputs.log_sum_exp.size());
  detail::require_size("logits", logits.size(), tokens, E);
  detail::require_size("probabilities", outputs.probabilities.size(), tokens, E);
  detail::require_size("experts", outputs.experts.size(), tokens, K);
  detail::require_size("gates", outputs.gates.size(), tokens, K);
  detail::require_size("load", outputs.load.size(), E);
  std::array<double, std::size_t{E}> probability;
  double entropy, square_log_sum_exp, counted;
  route(device, Router<C, E, K>{.order = order,
                                .logits = matrix(logits.data(), tokens, Index{E}),
                                .probabilities = matrix(outputs.probabilities.data(), tokens, Index{E}),
                                .log_sum_exp = outputs.log_sum_exp.data(),
                                .experts = outputs.experts.data(),
                                .gates = outputs.gates.data(),
                                .load = outputs.load.data(),
                                .probability = probability.data(),
                                .entropy = &entropy,
                                .square_log_sum_exp = &square_log_sum_exp,
                                .counted = &counted});
  return router_means(E, K, outputs.load.data(), probability.data(), entropy, square_log_sum_exp, counted);
}

}  // namespace moe_mamba::inline v0_2::cpu
