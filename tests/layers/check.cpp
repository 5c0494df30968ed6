// The checker of users' layers: the library's layers pass, and each kind of mistake is found.
#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// y = w ⊙ (x + the input of the previous step): correct, or with one mistake.
enum class Mistake { none, weights, input, state_gradient, forgets_state, ignores_packing, overwrites };

template <int D, Mistake M>
struct DelayLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind) : w(bind.vector("w", D, ParameterKind::gain, Initializer::ones())) {}
    typename Bind::Vector w;
  };
  static constexpr Index active_parameters = D;
  static constexpr double flops_per_token = 2.0 * D;
  static constexpr Index state_size = D;
  static constexpr bool takes_packed = true;

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape) : sum(arena.rows<C>(shape.tokens(), D)) {}
    MatrixView<C> sum;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    for (Index b = 0, row = 0; b < run.shape.batch; ++b) {
      if (M == Mistake::ignores_packing) row = std::min(b * run.shape.length, run.shape.tokens());
      const Index first = row, end = std::min(row + run.shape.length_of(b), run.shape.tokens());
      for (; row < end; ++row) {
        for (Index i = 0; i < D; ++i) {
          saved.sum(row, i) = x(row, i) + (row == first ? run.state.sequence(b)[i] : x(row - 1, i));
          y(row, i) = w.w[i] * saved.sum(row, i);
        }
      }
      for (Index i = 0; M != Mistake::forgets_state && end > first && i < D; ++i) {
        run.state.sequence(b)[i] = x(end - 1, i);
      }
    }
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C>, MatrixView<const C> dy, MatrixView<C> dx) {
    for (Index i = 0; M == Mistake::overwrites && i < D; ++i) g.w[i] = 0;
    for (Index b = 0, first = 0; b < run.shape.batch; first += run.shape.length_of(b++)) {
      C* const dbefore = run.dstate.sequence(b);
      for (Index row = first + run.shape.length_of(b); row-- > first;) {
        for (Index i = 0; i < D; ++i) {
          const C dsum = w.w[i] * dy(row, i);
          g.w[i] += dy(row, i) * saved.sum(row, i) * (M == Mistake::weights ? C(1.01) : C(1));
          dx(row, i) = dsum + (M == Mistake::input ? C(0) : dbefore[i]);
          if (M != Mistake::state_gradient || row > first) dbefore[i] = dsum;
        }
      }
    }
  }
};

template <Mistake M>
struct Delay {
  template <int Width>
  using Layer = DelayLayer<Width, M>;
};

template <Mistake M>
LayerCheck checked() {
  Cpu device;
  return check_layer<Delay<M>, 3>(device);
}

}  // namespace

TEST_CASE("The library's layers and norms pass the checker", "[layers][check]") {
  Cpu device(Threads{2});
  const auto check_passed = [](const LayerCheck& check) {
    INFO(check.text());
    CHECK(check.passed());
  };
  check_passed(check_layer<Mamba<State<3>, Expand<1>, InnerNorm<LayerNorm<>>, ProjectionBias>, 4>(device));
  check_passed(check_layer<Moe<Experts<3>, TopK<2>, Hidden<3>, ZLoss<1, 10>, SharedExperts<1>>, 5>(device));  // ReLU
  check_passed(check_layer<Attention<Heads<2>, Context<4>>, 4>(device));
  check_passed(check_layer<Parallel<Mlp<Hidden<3>>, Mamba<State<2>>>, 4>(device));
  check_passed(check_layer<RmsNorm<>, 5>(device));
  check_passed(check_layer<LayerNorm<>, 5>(device));
}

TEST_CASE("A capacity limit couples the tokens of a batch, which the checker finds", "[layers][check]") {
  Cpu device;
  const LayerCheck check = check_layer<Moe<Experts<2>, Hidden<3>, Silu, Capacity<1, 2>>, 4>(device);
  CHECK(check.gradients <= 1e-6);
  CHECK(check.packing > 1e-3);
  CHECK(check.chunks > 1e-3);
}

TEST_CASE("The checker finds what is wrong with a layer, and where", "[layers][check]") {
  CHECK(checked<Mistake::none>().passed());
  CHECK(checked<Mistake::weights>().furthest == "w");
  CHECK_FALSE(checked<Mistake::weights>().passed());
  CHECK(checked<Mistake::input>().furthest == "input");
  CHECK_FALSE(checked<Mistake::input>().passed());
  CHECK(checked<Mistake::state_gradient>().furthest == "initial states");
  CHECK_FALSE(checked<Mistake::state_gradient>().passed());
  CHECK(checked<Mistake::overwrites>().furthest == "w");
  CHECK_FALSE(checked<Mistake::overwrites>().passed());
  CHECK(checked<Mistake::forgets_state>().chunks > 1e-3);
  CHECK_FALSE(checked<Mistake::ignores_packing>().packing <= 1e-3);  // it leaves rows unwritten: NaN
}
