#pragma once

#include <type_traits>

#include "moe_mamba/layers/mamba_blocks.hpp"
#include "moe_mamba/layers/mamba_options.hpp"

namespace moe_mamba::inline v0_2 {

/// The Mamba block (Gu & Dao 2023, arXiv 2312.00752, section 3.4), of width D, inner width E, N states per channel, K
/// taps and step rank R:
///
///   [x, z] = in_proj(u);  x = silu(causal depthwise convolution(x) + bias);  [δ, B, C] = x_proj(x)
///   y = selective scan of x with step dt_proj(δ), gated by silu(z);  out = out_proj(y)
///
/// With an inner norm other than NoNorm, δ, B and C are each normalised first (Falcon-Mamba, Jamba); in_proj and
/// out_proj may have biases, and the convolution may have none. Either half of in_proj, or both, and out_proj may be
/// experts, with one router for all (Routing Mamba: Zhan et al. 2025, arXiv 2506.18145) or one for each (Pióro et al.
/// 2024, arXiv 2401.04081).
///
/// A sequence carries the last K - 1 inputs of the convolution and the scan's states: (K - 1) E + N E scalars.
template <int D, MambaOptions Options, class InnerNorm, class ExpertActivation>
struct MambaLayer : MambaBlocks<D, Options, InnerNorm, ExpertActivation>::Sum {
  using Blocks = MambaBlocks<D, Options, InnerNorm, ExpertActivation>;
  static constexpr int N = Blocks::N, E = Blocks::E, R = Blocks::R;
  using Router = typename Blocks::Router;
  using InProjection = typename Blocks::InProjection;
  using Convolution = typename Blocks::Convolution;
  using ScanProjection = typename Blocks::ScanProjection;
  using StepNorm = typename Blocks::StepNorm;
  using StateNorm = typename Blocks::StateNorm;
  using StepProjection = typename Blocks::StepProjection;
  using Scan = typename Blocks::Scan;
  using OutProjection = typename Blocks::OutProjection;
  template <class T>
  using Parts = typename Blocks::template Parts<T>;
  static constexpr bool has_inner_norm = !std::is_same_v<StepNorm, NoNormLayer<R>>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : router(bind.template block<Router>("router.")),
          in_proj(bind.template block<InProjection>("in_proj.", Initializer::uniform(D))),
          conv(bind.template block<Convolution>("conv1d.")),
          x_proj(bind.template block<ScanProjection>("x_proj.")),
          step_norm(bind.template block<StepNorm>("dt_norm.")),
          b_norm(bind.template block<StateNorm>("b_norm.")),
          c_norm(bind.template block<StateNorm>("c_norm.")),
          dt_proj(bind.template block<StepProjection>("dt_proj.")),
          scan(bind.template block<Scan>("")),
          out_proj(bind.template block<OutProjection>("out_proj.", Initializer::uniform(E).scaled_per_branch())) {}
    typename Router::template Weights<Bind> router;
    typename InProjection::template Weights<Bind> in_proj;
    typename Convolution::template Weights<Bind> conv;
    typename ScanProjection::template Weights<Bind> x_proj;
    typename StepNorm::template Weights<Bind> step_norm;
    typename StateNorm::template Weights<Bind> b_norm, c_norm;
    typename StepProjection::template Weights<Bind> dt_proj;
    typename Scan::template Weights<Bind> scan;
    typename OutProjection::template Weights<Bind> out_proj;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : router(arena, device, shape),
          in_proj(arena, device, shape),
          xz(arena.rows<C>(shape.tokens(), 2 * E)),
          conv(arena, device, shape),
          convolved(arena.rows<C>(shape.tokens(), E)),
          projected(arena.rows<C>(shape.tokens(), R + 2 * N)),
          normed(has_inner_norm ? arena.rows<C>(shape.tokens(), R + 2 * N) : projected),
          step_norm(arena, device, shape),
          b_norm(arena, device, shape),
          c_norm(arena, device, shape),
          delta(arena.rows<C>(shape.tokens(), E)),
          scan(arena, device, shape),
          gated(arena.rows<C>(shape.tokens(), E)),
          out_proj(arena, device, shape) {}
    typename Router::template Saved<C> router;
    typename InProjection::template Saved<C> in_proj;
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
    typename OutProjection::template Saved<C> out_proj;

    /// The inputs of the scan.
    constexpr ScanInputs<C> scan_inputs() const { return inputs(convolved, delta, normed, xz); }
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : router(arena, device, shape),
          in_proj(arena, device, shape),
          scan(arena, device, shape),
          out_proj(arena, device, shape) {}
    typename Router::template ForwardScratch<C> router;
    typename InProjection::template ForwardScratch<C> in_proj;
    typename Scan::template Scratch<C> scan;
    typename OutProjection::template ForwardScratch<C> out_proj;
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
          router(arena, device, shape),
          in_proj(arena, device, shape),
          scan(arena, device, shape),
          out_proj(arena, device, shape) {}
    MatrixView<C> dgated, dconvolved, ddelta;  // (T, E)
    MatrixView<C> dxz;                         // (T, 2E)
    MatrixView<C> dprojected, dnormed;         // (T, R + 2N)
    typename Router::template BackwardScratch<C> router;
    typename InProjection::template BackwardScratch<C> in_proj;
    typename Scan::template Scratch<C> scan;
    typename OutProjection::template BackwardScratch<C> out_proj;

    constexpr ScanInputs<C> scan_inputs() const { return inputs(dconvolved, ddelta, dnormed, dxz); }
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    const ForwardScratch<C> scratch(run.scratch, run.device, run.shape);
    Router::forward(run, w.router, saved.router, scratch.router, x);
    InProjection::forward(run.template after<Router>(), w.in_proj, saved.router, saved.in_proj, scratch.in_proj, x,
                          saved.xz);
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
    Scan::forward(run.template after<Convolution>(), w.scan, saved.scan, scratch.scan, saved.scan_inputs(),
                  saved.gated);
    OutProjection::forward(run.template after<Router, InProjection>(), w.out_proj, saved.router, saved.out_proj,
                           scratch.out_proj, saved.gated, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    const Parts<const C> projected(saved.projected), dnormed(scratch.dnormed);
    const Parts<C> dprojected(scratch.dprojected);
    auto dgates = scratch.router.gate_gradient();
    OutProjection::backward(run.template after<Router, InProjection>(), w.out_proj, g.out_proj, saved.router, dgates,
                            saved.out_proj, scratch.out_proj, saved.gated, dy, scratch.dgated);
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
    InProjection::backward(run.template after<Router>(), w.in_proj, g.in_proj, saved.router, dgates, saved.in_proj,
                           scratch.in_proj, x, scratch.dxz, dx);
    Router::backward(run, w.router, g.router, saved.router, scratch.router, dgates, x, dx);
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
