#pragma once

#include <algorithm>
#include <array>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

namespace moe_mamba {

/// The Mamba block (Gu & Dao 2023, arXiv 2312.00752, section 3.4), of width D, inner width E, N states a channel, K
/// taps and step rank R:
///
///   [x, z] = in_proj(u);  x = silu(causal depthwise convolution(x) + bias);  [δ, B, C] = x_proj(x)
///   y = selective scan of x with step dt_proj(δ), gated by silu(z);  out = out_proj(y)
///
/// A sequence carries the last K - 1 inputs of the convolution and the scan's states: (K - 1) E + N E scalars.
template <int D, int N, int K, int E, int R>
struct MambaLayer : LayerDefaults {
  static constexpr std::array<Parameter, 9> parameters = lay_out(std::array{
      matrix_parameter("in_proj.weight", 2 * E, D, {Initial::Law::uniform, 1, D}),
      stack_parameter("conv1d.weight", E, 1, K, {Initial::Law::uniform, 1, K}),
      vector_parameter("conv1d.bias", E, ParameterKind::bias, {Initial::Law::uniform, 1, K}),
      matrix_parameter("x_proj.weight", R + 2 * N, E, {Initial::Law::uniform, 1, E}),
      matrix_parameter("dt_proj.weight", E, R, {Initial::Law::uniform, 1, R}),
      vector_parameter("dt_proj.bias", E, ParameterKind::bias, {Initial::Law::step_bias}),
      matrix_parameter("A_log", E, N, {Initial::Law::log_states}, ParameterKind::decay_free),
      vector_parameter("D", E, ParameterKind::decay_free, {Initial::Law::ones}),
      matrix_parameter("out_proj.weight", D, E, {Initial::Law::uniform, 1, E, true}),
  });
  static constexpr Index in_proj = offset_of(parameters, "in_proj.weight");
  static constexpr Index conv_weight = offset_of(parameters, "conv1d.weight");
  static constexpr Index conv_bias = offset_of(parameters, "conv1d.bias");
  static constexpr Index x_proj = offset_of(parameters, "x_proj.weight");
  static constexpr Index dt_proj = offset_of(parameters, "dt_proj.weight");
  static constexpr Index dt_bias = offset_of(parameters, "dt_proj.bias");
  static constexpr Index a_log = offset_of(parameters, "A_log");
  static constexpr Index skip = offset_of(parameters, "D");
  static constexpr Index out_proj = offset_of(parameters, "out_proj.weight");

  static constexpr Index active_parameters = total_size(parameters);
  static constexpr Index convolution_state = Index{K - 1} * E;
  static constexpr Index state_size = convolution_state + Index{N} * E;

  /// The four products, the convolution, and 7 operations for each state: Δ·A, exp, ·h, Δx·B, +, ·C, +.
  static constexpr double flops_per_token =
      2.0 * (2.0 * E * D + (R + 2.0 * N) * E + double(E) * R + double(D) * E) + 2.0 * K * E + 7.0 * N * E;

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) {
      const Index tokens = shape.tokens();
      xz = matrix(arena.take<C>(tokens * 2 * E), tokens, 2 * E);
      convolved = matrix(arena.take<C>(tokens * E), tokens, E);
      projected = matrix(arena.take<C>(tokens * (R + 2 * N)), tokens, R + 2 * N);
      delta = matrix(arena.take<C>(tokens * E), tokens, E);
      gated = matrix(arena.take<C>(tokens * E), tokens, E);
      convolution = arena.take<C>(shape.batch * convolution_state);
      checkpoints = arena.take<C>(scan_checkpoints(shape) * N * E);
    }
    MatrixView<C> xz;         // (T, 2E): x before the convolution, and the gate z
    MatrixView<C> convolved;  // (T, E)
    MatrixView<C> projected;  // (T, R + 2N): δ, B, C
    MatrixView<C> delta;      // (T, E): before bias and softplus
    MatrixView<C> gated;      // (T, E): the scan's output
    C* convolution;           // (B, K - 1, E): the convolution's initial states
    C* checkpoints;           // (scan_checkpoints(shape), N, E): those of one sequence after those of the other
  };

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return largest_scratch<ForwardScratch<C>, BackwardScratch<C>>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, MatrixView<const C> x, MatrixView<C> y) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const S* p = run.parameters;
    linear(device, x, matrix(p + in_proj, 2 * E, D), saved.xz);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      causal_convolution(
          device, CausalConvolution<C, S, K>{.shape = part.shape,
                                             .x = rows(part, saved.xz.column_block(0, E)),
                                             .weight = p + conv_weight,
                                             .bias = p + conv_bias,
                                             .state = run.state.from(part.sequence),
                                             .saved_state = saved.convolution + part.sequence * convolution_state,
                                             .y = rows(part, saved.convolved)});
    });
    linear(device, saved.convolved, matrix(p + x_proj, R + 2 * N, E), saved.projected);
    linear(device, saved.projected.column_block(0, R), matrix(p + dt_proj, E, R), saved.delta);
    C* checkpoints = run.training ? saved.checkpoints : nullptr;
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      selective_scan(device, SelectiveScan<C, S, N>{.shape = part.shape,
                                                    .u = rows(part, saved.convolved),
                                                    .delta = rows(part, saved.delta),
                                                    .b = rows(part, saved.projected.column_block(R, N)),
                                                    .c = rows(part, saved.projected.column_block(R + N, N)),
                                                    .z = rows(part, saved.xz.column_block(E, E)),
                                                    .delta_bias = p + dt_bias,
                                                    .a_log = p + a_log,
                                                    .d = p + skip,
                                                    .state = run.state.at(convolution_state).from(part.sequence),
                                                    .checkpoints = checkpoints,
                                                    .y = rows(part, saved.gated),
                                                    .scratch = run.scratch});
      if (checkpoints != nullptr) checkpoints += scan_checkpoints(part.shape) * N * E;
    });
    linear(device, saved.gated, matrix(p + out_proj, D, E), y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const S* p = run.parameters;
    C* g = run.gradients;
    linear_backward_weight<S>(device, dy, saved.gated, matrix(g + out_proj, D, E));
    linear_backward_input(device, dy, matrix(p + out_proj, D, E), scratch.dgated, Into::assign);
    const C* checkpoints = saved.checkpoints;
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      selective_scan_backward(
          device, SelectiveScanBackward<C, S, N>{.shape = part.shape,
                                                 .u = rows(part, saved.convolved),
                                                 .delta = rows(part, saved.delta),
                                                 .b = rows(part, saved.projected.column_block(R, N)),
                                                 .c = rows(part, saved.projected.column_block(R + N, N)),
                                                 .z = rows(part, saved.xz.column_block(E, E)),
                                                 .delta_bias = p + dt_bias,
                                                 .a_log = p + a_log,
                                                 .d = p + skip,
                                                 .checkpoints = checkpoints,
                                                 .dy = rows(part, scratch.dgated),
                                                 .du = rows(part, scratch.dconvolved),
                                                 .ddelta = rows(part, scratch.ddelta),
                                                 .dz = rows(part, scratch.dxz.column_block(E, E)),
                                                 .db = rows(part, scratch.dprojected.column_block(R, N)),
                                                 .dc = rows(part, scratch.dprojected.column_block(R + N, N)),
                                                 .ddelta_bias = g + dt_bias,
                                                 .da_log = g + a_log,
                                                 .dd = g + skip,
                                                 .dstate = run.dstate.at(convolution_state).from(part.sequence),
                                                 .scratch = scratch.scan});
      checkpoints += scan_checkpoints(part.shape) * N * E;
    });
    linear_backward_weight<S>(device, scratch.ddelta, saved.projected.column_block(0, R), matrix(g + dt_proj, E, R));
    linear_backward_input(device, scratch.ddelta, matrix(p + dt_proj, E, R), scratch.dprojected.column_block(0, R),
                          Into::assign);
    linear_backward_weight<S>(device, scratch.dprojected, saved.convolved, matrix(g + x_proj, R + 2 * N, E));
    linear_backward_input(device, scratch.dprojected, matrix(p + x_proj, R + 2 * N, E), scratch.dconvolved, Into::add);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      causal_convolution_backward(device, CausalConvolutionBackward<C, S, K>{
                                              .shape = part.shape,
                                              .x = rows(part, saved.xz.column_block(0, E)),
                                              .weight = p + conv_weight,
                                              .bias = p + conv_bias,
                                              .saved_state = saved.convolution + part.sequence * convolution_state,
                                              .dy = rows(part, scratch.dconvolved),
                                              .dx = rows(part, scratch.dxz.column_block(0, E)),
                                              .dweight = g + conv_weight,
                                              .dbias = g + conv_bias,
                                              .dstate = run.dstate.from(part.sequence)});
    });
    linear_backward_weight<S>(device, scratch.dxz, x, matrix(g + in_proj, 2 * E, D));
    linear_backward_input(device, scratch.dxz, matrix(p + in_proj, 2 * E, D), dx, Into::assign);
  }

 private:
  /// The rows of some of a batch's sequences.
  template <class T>
  static constexpr MatrixView<T> rows(const SequenceRun& part, MatrixView<T> matrix) {
    return matrix.row_block(part.row, part.shape.tokens());
  }

  /// Memory of the scan, which goes through the runs of sequences one after the other.
  template <class C, class Device>
  static std::size_t scan_scratch(Device& device, const Shape& shape) {
    std::size_t most = 0;
    for_sequence_runs(shape, [&](const SequenceRun& part) {
      most = std::max(most, selective_scan_scratch<C>(device, part.shape, Index{E}, Index{N}));
    });
    return most;
  }

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape) {
      arena = arena.advanced(scan_scratch<C>(device, shape));
    }
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape) {
      const Index tokens = shape.tokens();
      dgated = matrix(arena.take<C>(tokens * E), tokens, E);
      dconvolved = matrix(arena.take<C>(tokens * E), tokens, E);
      ddelta = matrix(arena.take<C>(tokens * E), tokens, E);
      dxz = matrix(arena.take<C>(tokens * 2 * E), tokens, 2 * E);
      dprojected = matrix(arena.take<C>(tokens * (R + 2 * N)), tokens, R + 2 * N);
      scan = arena;
      arena = arena.advanced(scan_scratch<C>(device, shape));
    }
    MatrixView<C> dgated, dconvolved, ddelta;  // (T, E)
    MatrixView<C> dxz;                         // (T, 2E)
    MatrixView<C> dprojected;                  // (T, R + 2N)
    Arena scan;
  };
};

namespace detail {

template <class Layer, class Option>
struct MambaTakes {
  static_assert(is_integer_option<State, Option> || is_integer_option<Convolution, Option> ||
                    is_integer_option<Expand, Option> || is_integer_option<StepRank, Option>,
                "Mamba takes the options State<N>, Convolution<K>, Expand<F> and StepRank<R> and no other: "
                "MambaTakes<layer, option>");
};

template <class Layer, class... Options>
consteval bool check_mamba() {
  ((void)MambaTakes<Layer, Options>{}, ...);
  check_integer_option<Layer, State, 1, 4096, Options...>();
  check_integer_option<Layer, Convolution, 1, 64, Options...>();
  check_integer_option<Layer, Expand, 1, 64, Options...>();
  check_integer_option<Layer, StepRank, 1, 1 << 20, Options...>();
  return true;
}

}  // namespace detail

/// The Mamba block. Options: State<16>, Convolution<4>, Expand<2>, StepRank<width / 16, rounded up>.
template <class... Options>
struct Mamba {
  static_assert(detail::check_mamba<Mamba, Options...>());

  template <int W>
  using Layer =
      MambaLayer<W, detail::option_value<State, 16, Options...>(), detail::option_value<Convolution, 4, Options...>(),
                 detail::option_value<Expand, 2, Options...>() * W,
                 detail::option_value<StepRank, (W + 15) / 16, Options...>()>;
};

}  // namespace moe_mamba
