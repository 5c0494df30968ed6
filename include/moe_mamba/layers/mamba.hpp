#pragma once

#include <algorithm>
#include <array>
#include <type_traits>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/norm.hpp"
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
/// With an inner norm other than NoNorm, δ, B and C are each normed first (Falcon-Mamba, Jamba); the projections in and
/// out may have biases, and the convolution none.
///
/// A sequence carries the last K - 1 inputs of the convolution and the scan's states: (K - 1) E + N E scalars.
template <int D, int N, int K, int E, int R, class InnerNorm = NoNorm, bool ProjectionBias = false,
          bool ConvolutionBias = true>
struct MambaLayer : LayerDefaults {
  static constexpr bool has_inner_norm = !std::is_same_v<InnerNorm, NoNorm>;
  using StepNorm = typename InnerNorm::template Layer<R>;
  using StateNorm = typename InnerNorm::template Layer<N>;

  static constexpr auto parameters = [] {
    constexpr std::size_t norm_parameters = StepNorm::parameters.size();
    std::array<Parameter, 8 + int(ConvolutionBias) + 2 * int(ProjectionBias) + 3 * norm_parameters> all;
    std::size_t count = 0;
    all[count++] = matrix_parameter("in_proj.weight", 2 * E, D, {Initial::Law::uniform, 1, D});
    if (ProjectionBias) {
      all[count++] = vector_parameter("in_proj.bias", 2 * E, ParameterKind::bias, {Initial::Law::zeros});
    }
    all[count++] = stack_parameter("conv1d.weight", E, 1, K, {Initial::Law::uniform, 1, K});
    if (ConvolutionBias) {
      all[count++] = vector_parameter("conv1d.bias", E, ParameterKind::bias, {Initial::Law::uniform, 1, K});
    }
    all[count++] = matrix_parameter("x_proj.weight", R + 2 * N, E, {Initial::Law::uniform, 1, E});
    const auto add_norm = [&](const char* prefix, const auto& of_norm) {
      for (Parameter parameter : of_norm) {
        parameter.name = ParameterName(prefix).append(parameter.name.view());
        all[count++] = parameter;
      }
    };
    add_norm("dt_norm.", StepNorm::parameters);
    add_norm("b_norm.", StateNorm::parameters);
    add_norm("c_norm.", StateNorm::parameters);
    all[count++] = matrix_parameter("dt_proj.weight", E, R, {Initial::Law::uniform, 1, R});
    all[count++] = vector_parameter("dt_proj.bias", E, ParameterKind::bias, {Initial::Law::step_bias});
    all[count++] = matrix_parameter("A_log", E, N, {Initial::Law::log_states}, ParameterKind::decay_free);
    all[count++] = vector_parameter("D", E, ParameterKind::decay_free, {Initial::Law::ones});
    all[count++] = matrix_parameter("out_proj.weight", D, E, {Initial::Law::uniform, 1, E, true});
    if (ProjectionBias) {
      all[count++] = vector_parameter("out_proj.bias", D, ParameterKind::bias, {Initial::Law::zeros});
    }
    return lay_out(all);
  }();
  static constexpr Index in_proj = offset_of(parameters, "in_proj.weight");
  static constexpr Index in_bias = in_proj + Index{2} * E * D;
  static constexpr Index conv_weight = offset_of(parameters, "conv1d.weight");
  static constexpr Index conv_bias = conv_weight + Index{E} * K;
  static constexpr Index x_proj = offset_of(parameters, "x_proj.weight");
  static constexpr Index step_norm = x_proj + (R + Index{2} * N) * E;
  static constexpr Index b_norm = step_norm + parameters_of<StepNorm>;
  static constexpr Index c_norm = b_norm + parameters_of<StateNorm>;
  static constexpr Index dt_proj = offset_of(parameters, "dt_proj.weight");
  static constexpr Index dt_bias = offset_of(parameters, "dt_proj.bias");
  static constexpr Index a_log = offset_of(parameters, "A_log");
  static constexpr Index skip = offset_of(parameters, "D");
  static constexpr Index out_proj = offset_of(parameters, "out_proj.weight");
  static constexpr Index out_bias = out_proj + Index{D} * E;

  static constexpr Index active_parameters = total_size(parameters);
  static constexpr Index convolution_state = Index{K - 1} * E;
  static constexpr bool takes_packed = true;
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
      normed = projected;
      if constexpr (has_inner_norm) {
        normed = matrix(arena.take<C>(tokens * (R + 2 * N)), tokens, R + 2 * N);
        step_tape = arena;
        b_tape = step_tape.advanced(tape_bytes<StepNorm, C>(shape));
        c_tape = b_tape.advanced(tape_bytes<StateNorm, C>(shape));
        arena = c_tape.advanced(tape_bytes<StateNorm, C>(shape));
      }
      delta = matrix(arena.take<C>(tokens * E), tokens, E);
      gated = matrix(arena.take<C>(tokens * E), tokens, E);
      convolution = arena.take<compute_t<C>>(shape.batch * convolution_state);
      checkpoints = arena.take<compute_t<C>>(scan_checkpoints(shape) * N * E);
    }
    MatrixView<C> xz;         // (T, 2E): x before the convolution, and the gate z
    MatrixView<C> convolved;  // (T, E)
    MatrixView<C> projected;  // (T, R + 2N): δ, B, C
    MatrixView<C> normed;     // (T, R + 2N): the same after the inner norm
    Arena step_tape, b_tape, c_tape;
    MatrixView<C> delta;        // (T, E): before bias and softplus
    MatrixView<C> gated;        // (T, E): the scan's output
    compute_t<C>* convolution;  // (B, K - 1, E): the convolution's initial states
    compute_t<C>* checkpoints;  // (scan_checkpoints(shape), N, E): those of one sequence after those of the other
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
    if constexpr (ProjectionBias) add_bias(device, p + in_bias, saved.xz);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      causal_convolution(
          device, CausalConvolution<C, S, K>{.shape = part.shape,
                                             .x = part.rows(saved.xz.column_block(0, E)),
                                             .weight = p + conv_weight,
                                             .bias = ConvolutionBias ? p + conv_bias : nullptr,
                                             .state = run.state.from(part.sequence),
                                             .saved_state = saved.convolution + part.sequence * convolution_state,
                                             .y = part.rows(saved.convolved)});
    });
    linear(device, saved.convolved, matrix(p + x_proj, R + 2 * N, E), saved.projected);
    if constexpr (has_inner_norm) {
      each_norm(run, saved, [&]<class Norm>(auto inner, auto first, auto count) {
        Norm::forward(inner, MatrixView<const C>(saved.projected.column_block(first, count)),
                      saved.normed.column_block(first, count));
      });
    }
    linear(device, saved.normed.column_block(0, R), matrix(p + dt_proj, E, R), saved.delta);
    auto* checkpoints = run.training ? saved.checkpoints : nullptr;
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      selective_scan(device, SelectiveScan<C, S, N>{.shape = part.shape,
                                                    .u = part.rows(saved.convolved),
                                                    .delta = part.rows(saved.delta),
                                                    .b = part.rows(saved.normed.column_block(R, N)),
                                                    .c = part.rows(saved.normed.column_block(R + N, N)),
                                                    .z = part.rows(saved.xz.column_block(E, E)),
                                                    .delta_bias = p + dt_bias,
                                                    .a_log = p + a_log,
                                                    .d = p + skip,
                                                    .state = run.state.at(convolution_state).from(part.sequence),
                                                    .checkpoints = checkpoints,
                                                    .y = part.rows(saved.gated),
                                                    .scratch = run.scratch});
      if (checkpoints != nullptr) checkpoints += scan_checkpoints(part.shape) * N * E;
    });
    linear(device, saved.gated, matrix(p + out_proj, D, E), y);
    if constexpr (ProjectionBias) add_bias(device, p + out_bias, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const S* p = run.parameters;
    auto* g = run.gradients;
    linear_backward_weight<S>(device, dy, saved.gated, matrix(g + out_proj, D, E));
    if constexpr (ProjectionBias) bias_backward(device, dy, g + out_bias);
    linear_backward_input(device, dy, matrix(p + out_proj, D, E), scratch.dgated, Into::assign);
    const auto* checkpoints = saved.checkpoints;
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      selective_scan_backward(
          device, SelectiveScanBackward<C, S, N>{.shape = part.shape,
                                                 .u = part.rows(saved.convolved),
                                                 .delta = part.rows(saved.delta),
                                                 .b = part.rows(saved.normed.column_block(R, N)),
                                                 .c = part.rows(saved.normed.column_block(R + N, N)),
                                                 .z = part.rows(saved.xz.column_block(E, E)),
                                                 .delta_bias = p + dt_bias,
                                                 .a_log = p + a_log,
                                                 .d = p + skip,
                                                 .checkpoints = checkpoints,
                                                 .dy = part.rows(scratch.dgated),
                                                 .du = part.rows(scratch.dconvolved),
                                                 .ddelta = part.rows(scratch.ddelta),
                                                 .dz = part.rows(scratch.dxz.column_block(E, E)),
                                                 .db = part.rows(scratch.dnormed.column_block(R, N)),
                                                 .dc = part.rows(scratch.dnormed.column_block(R + N, N)),
                                                 .ddelta_bias = g + dt_bias,
                                                 .da_log = g + a_log,
                                                 .dd = g + skip,
                                                 .dstate = run.dstate.at(convolution_state).from(part.sequence),
                                                 .scratch = scratch.scan});
      checkpoints += scan_checkpoints(part.shape) * N * E;
    });
    linear_backward_weight<S>(device, scratch.ddelta, saved.normed.column_block(0, R), matrix(g + dt_proj, E, R));
    linear_backward_input(device, scratch.ddelta, matrix(p + dt_proj, E, R), scratch.dnormed.column_block(0, R),
                          Into::assign);
    if constexpr (has_inner_norm) {
      fill(device, C{}, scratch.dprojected);  // norms add to it
      each_norm(run, saved, [&]<class Norm>(auto inner, auto first, auto count) {
        Norm::backward(inner, MatrixView<const C>(saved.projected.column_block(first, count)),
                       MatrixView<const C>(scratch.dnormed.column_block(first, count)),
                       scratch.dprojected.column_block(first, count));
      });
    }
    linear_backward_weight<S>(device, scratch.dprojected, saved.convolved, matrix(g + x_proj, R + 2 * N, E));
    linear_backward_input(device, scratch.dprojected, matrix(p + x_proj, R + 2 * N, E), scratch.dconvolved, Into::add);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      causal_convolution_backward(device, CausalConvolutionBackward<C, S, K>{
                                              .shape = part.shape,
                                              .x = part.rows(saved.xz.column_block(0, E)),
                                              .weight = p + conv_weight,
                                              .bias = ConvolutionBias ? p + conv_bias : nullptr,
                                              .saved_state = saved.convolution + part.sequence * convolution_state,
                                              .dy = part.rows(scratch.dconvolved),
                                              .dx = part.rows(scratch.dxz.column_block(0, E)),
                                              .dweight = g + conv_weight,
                                              .dbias = ConvolutionBias ? g + conv_bias : nullptr,
                                              .dstate = run.dstate.from(part.sequence)});
    });
    linear_backward_weight<S>(device, scratch.dxz, x, matrix(g + in_proj, 2 * E, D));
    if constexpr (ProjectionBias) bias_backward(device, scratch.dxz, g + in_bias);
    linear_backward_input(device, scratch.dxz, matrix(p + in_proj, 2 * E, D), dx, Into::assign);
  }

 private:
  /// Memory of the scan, which goes through the runs of sequences one after the other.
  template <class C, class Device>
  static std::size_t scan_scratch(Device& device, const Shape& shape) {
    return largest_run_scratch(shape,
                               [&](Shape part) { return selective_scan_scratch<C>(device, part, Index{E}, Index{N}); });
  }

  /// pass.operator()<Norm>(run of the norm, first column, columns) for the inner norms of δ, B and C.
  template <class Run, class C, class Pass>
  static void each_norm(const Run& run, const Saved<C>& saved, const Pass& pass) {
    const auto inner = [&](Index offset, Arena tape) {
      Run own = run.advanced({.parameters = offset});
      own.tape = tape;
      return own;
    };
    pass.template operator()<StepNorm>(inner(step_norm, saved.step_tape), Index{0}, Index{R});
    pass.template operator()<StateNorm>(inner(b_norm, saved.b_tape), Index{R}, Index{N});
    pass.template operator()<StateNorm>(inner(c_norm, saved.c_tape), Index{R + N}, Index{N});
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
      dnormed = has_inner_norm ? matrix(arena.take<C>(tokens * (R + 2 * N)), tokens, R + 2 * N) : dprojected;
      scan = arena;
      arena = arena.advanced(scan_scratch<C>(device, shape));
    }
    MatrixView<C> dgated, dconvolved, ddelta;  // (T, E)
    MatrixView<C> dxz;                         // (T, 2E)
    MatrixView<C> dprojected, dnormed;         // (T, R + 2N)
    Arena scan;
  };
};

namespace detail {

template <class Layer, class Option>
struct MambaTakes {
  static_assert(is_integer_option<State, Option> || is_integer_option<Convolution, Option> ||
                    is_integer_option<Expand, Option> || is_integer_option<StepRank, Option> ||
                    is_norm_option<InnerNorm, Option> || is_one_of<Option, ProjectionBias, NoConvolutionBias>,
                "Mamba takes the options State<N>, Convolution<K>, Expand<F>, StepRank<R>, InnerNorm<Norm>, "
                "ProjectionBias and NoConvolutionBias and no other: MambaTakes<layer, option>");
};

template <class T>
struct IsInnerNorm {
  static constexpr bool value = is_norm_option<InnerNorm, T>;
};

template <class Layer, class Norm>
struct MambaInnerNorm {
  static_assert(NormDefinition<Norm>,
                "Mamba: InnerNorm takes a norm: RmsNorm<>, LayerNorm<>, NoNorm or your own with is_norm and a member "
                "template Layer<Width>: MambaInnerNorm<layer, norm given>");
};

template <class... Options>
using inner_norm_of = typename FirstMatch<IsInnerNorm, InnerNorm<NoNorm>, Options...>::type::norm;

template <class Layer, class... Options>
consteval bool check_mamba() {
  check<MambaTakes<Layer, Options>...>();
  check_integer_option<Layer, State, 1, 4096, Options...>();
  check_integer_option<Layer, Convolution, 1, 64, Options...>();
  check_integer_option<Layer, Expand, 1, 64, Options...>();
  check_integer_option<Layer, StepRank, 1, 1 << 20, Options...>();
  check<MambaInnerNorm<Layer, inner_norm_of<Options...>>>();
  check<OptionGivenOnce<Layer, InnerNorm<inner_norm_of<Options...>>,
                        (0 + ... + int(is_norm_option<InnerNorm, Options>))>>();
  check<OptionGivenOnce<Layer, ProjectionBias, (0 + ... + int(std::is_same_v<Options, ProjectionBias>))>>();
  check<OptionGivenOnce<Layer, NoConvolutionBias, (0 + ... + int(std::is_same_v<Options, NoConvolutionBias>))>>();
  return true;
}

}  // namespace detail

/// The Mamba block. Options: State<16>, Convolution<4>, Expand<2>, StepRank<width / 16, rounded up>, InnerNorm<NoNorm>;
/// ProjectionBias and NoConvolutionBias, which are left out.
template <class... Options>
struct Mamba {
  static_assert(detail::check_mamba<Mamba, Options...>());

  template <int W>
  using Layer =
      MambaLayer<W, detail::option_value<State, 16, Options...>(), detail::option_value<Convolution, 4, Options...>(),
                 detail::option_value<Expand, 2, Options...>() * W,
                 detail::option_value<StepRank, (W + 15) / 16, Options...>(), detail::inner_norm_of<Options...>,
                 detail::is_one_of<ProjectionBias, Options...>, !detail::is_one_of<NoConvolutionBias, Options...>>;
};

}  // namespace moe_mamba
