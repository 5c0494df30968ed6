// A user-defined layer with experts in two projections that share one router.
#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
using namespace moe_mamba;

/// y = a(x) + b(x), both by the experts that one router chooses; its gates weight b(x), and a(x) if Use says so.
template <GateUse Use>
struct TwoExperts {
  template <int D,
            class Choice = Routing<D, RoutingOptions{.experts = 4, .top_k = 2, .z = {1, 10}, .selection_bias = true}>,
            class A = ExpertProjection<Choice, ExpertLinear<D, D, 4>, Use>,
            class B = ExpertProjection<Choice, ExpertMlp<D, 3, D, 4, SwiGlu>>>
  struct Layer : LayerOf<Choice, A, B> {
    template <class Bind>
    struct Weights {
      constexpr explicit Weights(Bind& to)
          : router(to.template block<Choice>("r.")), a(to.template block<A>("a.")), b(to.template block<B>("b.")) {}
      typename Choice::template Weights<Bind> router;
      typename A::template Weights<Bind> a;
      typename B::template Weights<Bind> b;
    };
    template <class C>
    struct Saved {
      constexpr Saved(Arena& arena, auto& at, Shape shape)
          : choice(arena, at, shape), a(arena, at, shape), b(arena, at, shape) {}
      typename Choice::template Saved<C> choice;
      typename A::template Saved<C> a;
      typename B::template Saved<C> b;
    };
    template <class C>
    struct ForwardScratch {
      ForwardScratch(Arena& arena, auto& at, Shape shape)
          : choice(arena, at, shape), a(arena, at, shape), b(arena, at, shape) {}
      typename Choice::template ForwardScratch<C> choice;
      typename A::template ForwardScratch<C> a;
      typename B::template ForwardScratch<C> b;
    };
    template <class C>
    struct BackwardScratch {
      BackwardScratch(Arena& arena, auto& at, Shape shape)
          : choice(arena, at, shape), a(arena, at, shape), b(arena, at, shape) {}
      typename Choice::template BackwardScratch<C> choice;
      typename A::template BackwardScratch<C> a;
      typename B::template BackwardScratch<C> b;
    };
    template <class C>
    static void forward(auto run, const auto& w, const Saved<C>& saved, auto x, auto y) {
      const ForwardScratch<C> scratch(run.scratch, run.device, run.shape);
      Choice::forward(run, w.router, saved.choice, scratch.choice, x);
      A::forward(run, w.a, saved.choice, saved.a, scratch.a, x, y);
      B::forward(run, w.b, saved.choice, saved.b, scratch.b, x, y, Into::add);
    }
    template <class C>
    static void backward(auto run, const auto& w, const auto& g, const Saved<C>& saved, auto x, auto dy, auto dx) {
      const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
      auto dgates = scratch.choice.gate_gradient();
      A::backward(run, w.a, g.a, saved.choice, dgates, saved.a, scratch.a, dy, dx);
      B::backward(run, w.b, g.b, saved.choice, dgates, saved.b, scratch.b, dy, dx, Into::add);
      Choice::backward(run, w.router, g.router, saved.choice, scratch.choice, dgates, x, dx);
    }
  };
};

TEMPLATE_TEST_CASE_SIG("Projections share a router", "[user]", ((GateUse U), U), GateUse::weight, GateUse::selection) {
  Cpu device;
  CHECK(check_layer<TwoExperts<U>, 5>(device).passed());
}
