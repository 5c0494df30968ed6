#pragma once

#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/blocks/norm.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

namespace moe_mamba {

/// The numbers of a Mamba block.
struct MambaOptions {
  int states = 16;               ///< N, of each channel
  int taps = 4;                  ///< K, of the convolution
  int expand = 2;                ///< inner width over width
  int step_rank = 0;             ///< R; 0: a sixteenth of the width, rounded up
  bool projection_bias = false;  ///< of the projections into and out of the block
  bool convolution_bias = true;

  /// The same with nothing left to the width.
  constexpr MambaOptions of_width(int width) const {
    MambaOptions all = *this;
    if (step_rank == 0) all.step_rank = (width + 15) / 16;
    return all;
  }
};

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
template <int D, MambaOptions Options, class InnerNorm>
struct MambaLayer : LayerDefaults {
  static constexpr int N = Options.states, K = Options.taps, E = Options.expand * D, R = Options.step_rank;
  using StepNorm = typename InnerNorm::template Layer<R>;
  using StateNorm = typename InnerNorm::template Layer<N>;
  static constexpr bool has_inner_norm = !std::is_same_v<StepNorm, NoNormLayer<R>>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : in_proj(bind.matrix("in_proj.weight", 2 * E, D, Initializer::uniform(D))),
          in_bias(bind.vector_if(Options.projection_bias, "in_proj.bias", 2 * E, ParameterKind::bias,
                                 Initializer::zeros())),
          conv(bind.stack("conv1d.weight", E, 1, K, Initializer::uniform(K))),
          conv_bias(
              bind.vector_if(Options.convolution_bias, "conv1d.bias", E, ParameterKind::bias, Initializer::uniform(K))),
          x_proj(bind.matrix("x_proj.weight", R + 2 * N, E, Initializer::uniform(E))),
          step_norm(bind.template layer<StepNorm>("dt_norm.")),
          b_norm(bind.template layer<StateNorm>("b_norm.")),
          c_norm(bind.template layer<StateNorm>("c_norm.")),
          dt_proj(bind.matrix("dt_proj.weight", E, R, Initializer::uniform(R))),
          dt_bias(bind.vector("dt_proj.bias", E, ParameterKind::bias, Initializer::dt_bias())),
          a_log(bind.matrix("A_log", E, N, Initializer::s4d_real(), ParameterKind::decay_free)),
          skip(bind.vector("D", E, ParameterKind::decay_free, Initializer::ones())),
          out_proj(bind.matrix("out_proj.weight", D, E, Initializer::uniform(E).scaled_per_branch())),
          out_bias(
              bind.vector_if(Options.projection_bias, "out_proj.bias", D, ParameterKind::bias, Initializer::zeros())) {}
    typename Bind::Matrix in_proj;    // (2E, D): x, and the gate z
    typename Bind::Vector in_bias;    // (2E) or null
    typename Bind::Stack conv;        // (E, 1, K)
    typename Bind::Vector conv_bias;  // (E) or null
    typename Bind::Matrix x_proj;     // (R + 2N, E): δ, B, C
    typename StepNorm::template Weights<Bind> step_norm;
    typename StateNorm::template Weights<Bind> b_norm, c_norm;
    typename Bind::Matrix dt_proj;   // (E, R)
    typename Bind::Vector dt_bias;   // (E)
    typename Bind::Matrix a_log;     // (E, N)
    typename Bind::Vector skip;      // (E)
    typename Bind::Matrix out_proj;  // (D, E)
    typename Bind::Vector out_bias;  // (D) or null
  };

  static constexpr Index active_parameters = parameters_of<MambaLayer>;
  static constexpr Index convolution_state = Index{K - 1} * E;
  static constexpr bool takes_packed = true;
  static constexpr Index state_size = convolution_state + Index{N} * E;

  /// The four products, the convolution, and 7 operations for each state: Δ·A, exp, ·h, Δx·B, +, ·C, +.
  static constexpr double flops_per_token =
      2.0 * (2.0 * E * D + (R + 2.0 * N) * E + double(E) * R + double(D) * E) + 2.0 * K * E + 7.0 * N * E;

  /// The halves of (T, 2E), and the parts of (T, R + 2N).
  template <class C>
  struct Halves {
    explicit Halves(MatrixView<C> xz) : x(xz.column_block(0, E)), z(xz.column_block(E, E)) {}
    MatrixView<C> x, z;
  };
  template <class C>
  struct Parts {
    explicit Parts(MatrixView<C> all)
        : step(all.column_block(0, R)), b(all.column_block(R, N)), c(all.column_block(R + N, N)) {}
    MatrixView<C> step, b, c;
  };

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape)
        : xz(arena.rows<C>(shape.tokens(), 2 * E)),
          convolved(arena.rows<C>(shape.tokens(), E)),
          projected(arena.rows<C>(shape.tokens(), R + 2 * N)),
          normed(has_inner_norm ? arena.rows<C>(shape.tokens(), R + 2 * N) : projected),
          step_norm(arena, shape),
          b_norm(arena, shape),
          c_norm(arena, shape),
          delta(arena.rows<C>(shape.tokens(), E)),
          gated(arena.rows<C>(shape.tokens(), E)),
          convolution(arena.take<compute_t<C>>(shape.batch * convolution_state)),
          checkpoints(arena.take<compute_t<C>>(scan_checkpoints(shape) * N * E)) {}
    MatrixView<C> xz;         // (T, 2E): x before the convolution, and the gate z
    MatrixView<C> convolved;  // (T, E)
    MatrixView<C> projected;  // (T, R + 2N): δ, B, C
    MatrixView<C> normed;     // (T, R + 2N): the same after the inner norms
    typename StepNorm::template Saved<C> step_norm;
    typename StateNorm::template Saved<C> b_norm, c_norm;
    MatrixView<C> delta;        // (T, E): before bias and softplus
    MatrixView<C> gated;        // (T, E): the scan's output
    compute_t<C>* convolution;  // (B, K - 1, E): the convolution's initial states
    compute_t<C>* checkpoints;  // (scan_checkpoints(shape), N, E): those of one sequence after those of the other
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : scan(arena.block(selective_scan_scratch<C>(device, shape, Index{E}, Index{N}))) {}
    Arena scan;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : dgated(arena.rows<C>(shape.tokens(), E)),
          dconvolved(arena.rows<C>(shape.tokens(), E)),
          ddelta(arena.rows<C>(shape.tokens(), E)),
          dxz(arena.rows<C>(shape.tokens(), 2 * E)),
          dprojected(arena.rows<C>(shape.tokens(), R + 2 * N)),
          dnormed(has_inner_norm ? arena.rows<C>(shape.tokens(), R + 2 * N) : dprojected),
          scan(arena.block(selective_scan_scratch<C>(device, shape, Index{E}, Index{N}))) {}
    MatrixView<C> dgated, dconvolved, ddelta;  // (T, E)
    MatrixView<C> dxz;                         // (T, 2E)
    MatrixView<C> dprojected, dnormed;         // (T, R + 2N)
    Arena scan;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    auto& device = run.device;
    const ForwardScratch<C> scratch(run.scratch, device, run.shape);
    const Halves<C> xz(saved.xz);
    const Parts<C> projected(saved.projected), normed(saved.normed);
    linear(device, x, w.in_proj, saved.xz);
    if constexpr (Options.projection_bias) add_bias(device, w.in_bias, saved.xz);
    causal_convolution(device, CausalConvolution<C, S, K>{.shape = run.shape,
                                                          .x = xz.x,
                                                          .weight = w.conv.data,
                                                          .bias = w.conv_bias,
                                                          .state = run.state,
                                                          .saved_state = saved.convolution,
                                                          .y = saved.convolved});
    linear(device, saved.convolved, w.x_proj, saved.projected);
    if constexpr (has_inner_norm) {
      StepNorm::forward(run, w.step_norm, saved.step_norm, MatrixView<const C>(projected.step), normed.step);
      StateNorm::forward(run, w.b_norm, saved.b_norm, MatrixView<const C>(projected.b), normed.b);
      StateNorm::forward(run, w.c_norm, saved.c_norm, MatrixView<const C>(projected.c), normed.c);
    }
    linear(device, normed.step, w.dt_proj, saved.delta);
    selective_scan(device, SelectiveScan<C, S, N>{.shape = run.shape,
                                                  .u = saved.convolved,
                                                  .delta = saved.delta,
                                                  .b = normed.b,
                                                  .c = normed.c,
                                                  .z = xz.z,
                                                  .delta_bias = w.dt_bias,
                                                  .a_log = w.a_log.data,
                                                  .d = w.skip,
                                                  .state = run.state.at(convolution_state),
                                                  .checkpoints = run.training ? saved.checkpoints : nullptr,
                                                  .y = saved.gated,
                                                  .scratch = scratch.scan});
    linear(device, saved.gated, w.out_proj, y);
    if constexpr (Options.projection_bias) add_bias(device, w.out_bias, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const Halves<C> xz(saved.xz), dxz(scratch.dxz);
    const Parts<C> projected(saved.projected), normed(saved.normed);
    const Parts<C> dprojected(scratch.dprojected), dnormed(scratch.dnormed);
    linear_backward_weight<S>(device, dy, saved.gated, g.out_proj);
    if constexpr (Options.projection_bias) bias_backward(device, dy, g.out_bias);
    linear_backward_input(device, dy, w.out_proj, scratch.dgated, Into::assign);
    selective_scan_backward(device, SelectiveScanBackward<C, S, N>{.shape = run.shape,
                                                                   .u = saved.convolved,
                                                                   .delta = saved.delta,
                                                                   .b = normed.b,
                                                                   .c = normed.c,
                                                                   .z = xz.z,
                                                                   .delta_bias = w.dt_bias,
                                                                   .a_log = w.a_log.data,
                                                                   .d = w.skip,
                                                                   .checkpoints = saved.checkpoints,
                                                                   .dy = scratch.dgated,
                                                                   .du = scratch.dconvolved,
                                                                   .ddelta = scratch.ddelta,
                                                                   .dz = dxz.z,
                                                                   .db = dnormed.b,
                                                                   .dc = dnormed.c,
                                                                   .ddelta_bias = g.dt_bias,
                                                                   .da_log = g.a_log.data,
                                                                   .dd = g.skip,
                                                                   .dstate = run.dstate.at(convolution_state),
                                                                   .scratch = scratch.scan});
    linear_backward_weight<S>(device, scratch.ddelta, normed.step, g.dt_proj);
    linear_backward_input(device, scratch.ddelta, w.dt_proj, dnormed.step, Into::assign);
    if constexpr (has_inner_norm) {
      fill(device, C{}, scratch.dprojected);  // norms add to it
      StepNorm::backward(run, w.step_norm, g.step_norm, saved.step_norm, MatrixView<const C>(projected.step),
                         MatrixView<const C>(dnormed.step), dprojected.step);
      StateNorm::backward(run, w.b_norm, g.b_norm, saved.b_norm, MatrixView<const C>(projected.b),
                          MatrixView<const C>(dnormed.b), dprojected.b);
      StateNorm::backward(run, w.c_norm, g.c_norm, saved.c_norm, MatrixView<const C>(projected.c),
                          MatrixView<const C>(dnormed.c), dprojected.c);
    }
    linear_backward_weight<S>(device, scratch.dprojected, saved.convolved, g.x_proj);
    linear_backward_input(device, scratch.dprojected, w.x_proj, scratch.dconvolved, Into::add);
    causal_convolution_backward(device, CausalConvolutionBackward<C, S, K>{.shape = run.shape,
                                                                           .x = xz.x,
                                                                           .weight = w.conv.data,
                                                                           .bias = w.conv_bias,
                                                                           .saved_state = saved.convolution,
                                                                           .dy = scratch.dconvolved,
                                                                           .dx = dxz.x,
                                                                           .dweight = g.conv.data,
                                                                           .dbias = g.conv_bias,
                                                                           .dstate = run.dstate});
    linear_backward_weight<S>(device, scratch.dxz, x, g.in_proj);
    if constexpr (Options.projection_bias) bias_backward(device, scratch.dxz, g.in_bias);
    linear_backward_input(device, scratch.dxz, w.in_proj, dx, Into::assign);
  }
};

}  // namespace moe_mamba
