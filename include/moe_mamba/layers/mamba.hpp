#pragma once

#include <type_traits>

#include "moe_mamba/blocks/convolution.hpp"
#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/norm.hpp"
#include "moe_mamba/blocks/projection.hpp"
#include "moe_mamba/blocks/state_space.hpp"

namespace moe_mamba::inline v0_2 {

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
  static constexpr int N = Options.states, E = Options.expand * D, R = Options.step_rank;
  using InProjection = Projection<D, 2 * E, Options.projection_bias>;
  using Convolution = DepthwiseConvolution<E, Options.taps, Options.convolution_bias>;
  using ScanProjection = Projection<E, R + 2 * N>;
  using StepNorm = typename InnerNorm::template Layer<R>;
  using StateNorm = typename InnerNorm::template Layer<N>;
  using StepProjection = Projection<R, E>;
  using Scan = SelectiveStateSpace<E, N>;
  using OutProjection = Projection<E, D, Options.projection_bias>;
  using Sum = LayerOf<InProjection, Convolution, ScanProjection, StepNorm, StateNorm, StateNorm, StepProjection, Scan,
                      OutProjection>;
  static constexpr bool has_inner_norm = !std::is_same_v<StepNorm, NoNormLayer<R>>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : in_proj(bind.template block<InProjection>("in_proj.")),
          conv(bind.template block<Convolution>("conv1d.")),
          x_proj(bind.template block<ScanProjection>("x_proj.")),
          step_norm(bind.template block<StepNorm>("dt_norm.")),
          b_norm(bind.template block<StateNorm>("b_norm.")),
          c_norm(bind.template block<StateNorm>("c_norm.")),
          dt_proj(bind.template block<StepProjection>("dt_proj.")),
          scan(bind.template block<Scan>("")),
          out_proj(bind.template block<OutProjection>("out_proj.", Initializer::uniform(E).scaled_per_branch())) {}
    typename InProjection::template Weights<Bind> in_proj;
    typename Convolution::template Weights<Bind> conv;
    typename ScanProjection::template Weights<Bind> x_proj;
    typename StepNorm::template Weights<Bind> step_norm;
    typename StateNorm::template Weights<Bind> b_norm, c_norm;
    typename StepProjection::template Weights<Bind> dt_proj;
    typename Scan::template Weights<Bind> scan;
    typename OutProjection::template Weights<Bind> out_proj;
  };

  static constexpr Index active_parameters = Sum::active_parameters;
  static constexpr double flops_per_token = Sum::flops_per_token;
  static constexpr Index state_size = Sum::state_size;
  static constexpr bool takes_packed = Sum::takes_packed;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return Sum::template thread_scratch<C>(device, shape, training);
  }

  /// The parts of (T, R + 2N).
  template <class T>
  struct Parts {
    constexpr explicit Parts(MatrixView<T> all)
        : step(all.column_block(0, R)), b(all.column_block(R, N)), c(all.column_block(R + N, N)) {}
    MatrixView<T> step, b, c;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : xz(arena.rows<C>(shape.tokens(), 2 * E)),
          conv(arena, device, shape),
          convolved(arena.rows<C>(shape.tokens(), E)),
          projected(arena.rows<C>(shape.tokens(), R + 2 * N)),
          normed(has_inner_norm ? arena.rows<C>(shape.tokens(), R + 2 * N) : projected),
          step_norm(arena, device, shape),
          b_norm(arena, device, shape),
          c_norm(arena, device, shape),
          delta(arena.rows<C>(shape.tokens(), E)),
          scan(arena, device, shape),
          gated(arena.rows<C>(shape.tokens(), E)) {}
    MatrixView<C> xz;  // (T, 2E): x before the convolution, and the gate z
    typename Convolution::template Saved<C> conv;
    MatrixView<C> convolved;  // (T, E)
    MatrixView<C> projected;  // (T, R + 2N): δ, B, C
    MatrixView<C> normed;     // (T, R + 2N): the same after the inner norms
    typename StepNorm::template Saved<C> step_norm;
    typename StateNorm::template Saved<C> b_norm, c_norm;
    MatrixView<C> delta;  // (T, E): before bias and softplus
    typename Scan::template Saved<C> scan;
    MatrixView<C> gated;  // (T, E): the scan's output

    /// What the scan reads.
    constexpr ScanInputs<C> scan_inputs() const { return inputs(convolved, delta, normed, xz); }
  };

  template <class C>
  using ForwardScratch = typename Scan::template Scratch<C>;

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
          scan(arena, device, shape) {}
    MatrixView<C> dgated, dconvolved, ddelta;  // (T, E)
    MatrixView<C> dxz;                         // (T, 2E)
    MatrixView<C> dprojected, dnormed;         // (T, R + 2N)
    typename Scan::template Scratch<C> scan;

    constexpr ScanInputs<C> scan_inputs() const { return inputs(dconvolved, ddelta, dnormed, dxz); }
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    const ForwardScratch<C> scratch(run.scratch, run.device, run.shape);
    InProjection::forward(run, w.in_proj, x, saved.xz);
    Convolution::forward(run, w.conv, saved.conv, saved.xz.column_block(0, E), saved.convolved);
    ScanProjection::forward(run, w.x_proj, saved.convolved, saved.projected);
    const Parts<const C> projected(saved.projected);
    const Parts<C> normed(saved.normed);
    if constexpr (has_inner_norm) {
      StepNorm::forward(run, w.step_norm, saved.step_norm, projected.step, normed.step);
      StateNorm::forward(run, w.b_norm, saved.b_norm, projected.b, normed.b);
      StateNorm::forward(run, w.c_norm, saved.c_norm, projected.c, normed.c);
    }
    StepProjection::forward(run, w.dt_proj, normed.step, saved.delta);
    Scan::forward(run.template after<Convolution>(), w.scan, saved.scan, scratch, saved.scan_inputs(), saved.gated);
    OutProjection::forward(run, w.out_proj, saved.gated, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    const Parts<const C> projected(saved.projected), dnormed(scratch.dnormed);
    const Parts<C> dprojected(scratch.dprojected);
    OutProjection::backward(run, w.out_proj, g.out_proj, saved.gated, dy, scratch.dgated);
    Scan::backward(run.template after<Convolution>(), w.scan, g.scan, saved.scan, scratch.scan, saved.scan_inputs(),
                   scratch.dgated, scratch.scan_inputs());
    StepProjection::backward(run, w.dt_proj, g.dt_proj, Parts<C>(saved.normed).step, scratch.ddelta,
                             Parts<C>(scratch.dnormed).step);
    if constexpr (has_inner_norm) {
      fill(run.device, C{}, scratch.dprojected);  // norms add to it
      StepNorm::backward(run, w.step_norm, g.step_norm, saved.step_norm, projected.step, dnormed.step, dprojected.step);
      StateNorm::backward(run, w.b_norm, g.b_norm, saved.b_norm, projected.b, dnormed.b, dprojected.b);
      StateNorm::backward(run, w.c_norm, g.c_norm, saved.c_norm, projected.c, dnormed.c, dprojected.c);
    }
    ScanProjection::backward(run, w.x_proj, g.x_proj, saved.convolved, scratch.dprojected, scratch.dconvolved,
                             Into::add);
    Convolution::backward(run, w.conv, g.conv, saved.conv, saved.xz.column_block(0, E), scratch.dconvolved,
                          scratch.dxz.column_block(0, E));
    InProjection::backward(run, w.in_proj, g.in_proj, x, scratch.dxz, dx);
  }

 private:
  /// The scan's inputs, or the gradients with respect to them, from the buffers that hold them.
  template <class C>
  static constexpr ScanInputs<C> inputs(MatrixView<C> u, MatrixView<C> delta, MatrixView<C> projected,
                                        MatrixView<C> xz) {
    const Parts<C> part(projected);
    return {.u = u, .delta = delta, .b = part.b, .c = part.c, .z = xz.column_block(E, E)};
  }
};

}  // namespace moe_mamba::inline v0_2
