// A user-defined layer, composed of the library's blocks: the gated norm before the output projection of Mamba-2.
#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
using namespace moe_mamba;

/// [z, u] = in(x); y = out(RMSNorm(u ⊙ silu(z))).
struct GatedNorm {
  template <int D, class In = Projection<D, 2 * D>, class Norm = RmsNorm<>::Layer<D>, class Out = Projection<D, D>>
  struct Layer : LayerOf<In, Norm, Out> {
    template <class Bind>
    struct Weights {
      constexpr explicit Weights(Bind& bind)
          : in(bind.template block<In>("in.")),
            norm(bind.template block<Norm>("norm.")),
            out(bind.template block<Out>("out.")) {}
      typename In::template Weights<Bind> in;
      typename Norm::template Weights<Bind> norm;
      typename Out::template Weights<Bind> out;
    };
    template <class C>
    struct Saved {
      constexpr Saved(Arena& arena, auto& at, Shape shape)
          : zu(arena, at, shape), gated(arena, at, shape), norm(arena, at, shape), normed(arena, at, shape) {}
      RowBuffer<C, 2 * D> zu;
      RowBuffer<C, D> gated;
      typename Norm::template Saved<C> norm;
      RowBuffer<C, D> normed;
    };
    template <class C>
    using BackwardScratch = Saved<C>;  // gradients with respect to each

    template <class C>
    static void forward(auto run, const auto& w, const Saved<C>& saved, auto x, auto y) {
      In::forward(run, w.in, x, saved.zu.rows);
      activate(run.device, SwiGlu{}, saved.zu.rows, saved.gated.rows);
      Norm::forward(run, w.norm, saved.norm, MatrixView<const C>(saved.gated.rows), saved.normed.rows);
      Out::forward(run, w.out, saved.normed.rows, y);
    }
    template <class C>
    static void backward(auto run, const auto& w, const auto& g, const Saved<C>& saved, auto x, auto dy, auto dx) {
      const BackwardScratch<C> d(run.scratch, run.device, run.shape);
      Out::backward(run, w.out, g.out, saved.normed.rows, dy, d.normed.rows);
      fill(run.device, C(0), d.gated.rows);  // norms add to it
      Norm::backward(run, w.norm, g.norm, saved.norm, MatrixView<const C>(saved.gated.rows),
                     MatrixView<const C>(d.normed.rows), d.gated.rows);
      activate_backward(run.device, SwiGlu{}, saved.zu.rows, d.gated.rows, d.zu.rows);
      In::backward(run, w.in, g.in, x, d.zu.rows, dx);
    }
  };
};

TEST_CASE("A gated norm is a user-defined layer", "[layers][user]") {
  Cpu device;
  CHECK(check_layer<GatedNorm, 5>(device).passed());
}
