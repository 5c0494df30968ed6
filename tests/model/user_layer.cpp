// A layer that is defined here, outside the library, is a layer like any other.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "layers/finite_differences.hpp"
#include "model/definitions.hpp"
#include "moe_mamba/reference.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/catch.hpp"

namespace user {

using moe_mamba::Index;
using moe_mamba::Into;
using moe_mamba::MatrixView;
using moe_mamba::Shape;
using moe_mamba::StateView;

/// A leaky integrator of each channel: h_t = λ h_{t-1} + (1 - λ) x_t with λ = sigmoid(leak); y_t = h_t.
template <class C, class S>
struct Integration {
  Shape shape;
  MatrixView<const C> x;  // (T, D)
  const S* leak;          // (D)
  StateView<C> state;     // (D) per sequence, in and out; may be null
  C* initial;             // (B, D): receives a copy of the initial states
  MatrixView<C> y;        // (T, D)
};

template <class C, class S>
struct IntegrationBackward {
  Shape shape;
  MatrixView<const C> x, y, dy;
  const S* leak;
  const C* initial;
  MatrixView<C> dx;     // overwritten
  C* dleak;             // added to
  StateView<C> dstate;  // in and out; may be null
};

/// An operation for any device, as it does not use it.
template <class Device, class C, class S>
void integrate(Device&, const Integration<C, S>& run) {
  for (Index b = 0, first = 0; b < run.shape.batch; first += run.shape.length_of(b++)) {
    for (Index i = 0; i < run.y.columns; ++i) {
      const C keep = moe_mamba::sigmoid(static_cast<C>(run.leak[i]));
      C h = run.state ? run.state.sequence(b)[i] : C(0);
      run.initial[b * run.y.columns + i] = h;
      for (Index t = first; t < first + run.shape.length_of(b); ++t) {
        h = keep * h + (C(1) - keep) * run.x(t, i);
        run.y(t, i) = h;
      }
      if (run.state) run.state.sequence(b)[i] = h;
    }
  }
}

template <class Device, class C, class S>
void integrate_backward(Device&, const IntegrationBackward<C, S>& run) {
  for (Index b = 0, first = 0; b < run.shape.batch; first += run.shape.length_of(b++)) {
    for (Index i = 0; i < run.dx.columns; ++i) {
      const C keep = moe_mamba::sigmoid(static_cast<C>(run.leak[i]));
      C dh = run.dstate ? run.dstate.sequence(b)[i] : C(0), dkeep = 0;
      for (Index t = first + run.shape.length_of(b); t-- > first;) {
        const C before = t > first ? run.y(t - 1, i) : run.initial[b * run.dx.columns + i];
        dh += run.dy(t, i);
        dkeep += dh * (before - run.x(t, i));
        run.dx(t, i) = (C(1) - keep) * dh;
        dh *= keep;
      }
      if (run.dstate) run.dstate.sequence(b)[i] = dh;
      run.dleak[i] += dkeep * keep * (C(1) - keep);
    }
  }
}

/// The integrator after a linear map, an operation of the library.
template <int D>
struct IntegratorLayer : moe_mamba::LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : in(bind.matrix("in.weight", D, D, moe_mamba::Initializer::uniform(D))),
          leak(bind.vector("leak", D, moe_mamba::ParameterKind::decay_free, moe_mamba::Initializer::zeros())) {}
    typename Bind::Matrix in;
    typename Bind::Vector leak;
  };
  static constexpr Index active_parameters = moe_mamba::parameters_of<IntegratorLayer>;
  static constexpr double flops_per_token = 2.0 * D * D;
  static constexpr Index state_size = D;
  static constexpr bool takes_packed = true;

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(moe_mamba::Arena& arena, Device&, Shape shape)
        : x(arena.rows<C>(shape.tokens(), D)),
          y(arena.rows<C>(shape.tokens(), D)),
          initial(arena.take<C>(shape.batch * D)) {}
    MatrixView<C> x, y;
    C* initial;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(moe_mamba::Arena& arena, Device&, Shape shape) : dx(arena.rows<C>(shape.tokens(), D)) {}
    MatrixView<C> dx;
  };

  template <class Device, class S, class C>
  static void forward(moe_mamba::Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    linear(run.device, x, w.in, saved.x);
    integrate(run.device, Integration<C, S>{.shape = run.shape,
                                            .x = saved.x,
                                            .leak = w.leak,
                                            .state = run.state,
                                            .initial = saved.initial,
                                            .y = saved.y});
    copy(run.device, saved.y, y);
  }

  template <class Device, class S, class C>
  static void backward(moe_mamba::Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    integrate_backward(run.device, IntegrationBackward<C, S>{.shape = run.shape,
                                                             .x = saved.x,
                                                             .y = saved.y,
                                                             .dy = dy,
                                                             .leak = w.leak,
                                                             .initial = saved.initial,
                                                             .dx = scratch.dx,
                                                             .dleak = g.leak,
                                                             .dstate = run.dstate});
    linear_backward_weight<S>(run.device, scratch.dx, x, g.in);
    linear_backward_input(run.device, scratch.dx, w.in, dx, Into::assign);
  }
};

/// The option for it in a definition.
struct Integrator {
  template <int D>
  using Layer = IntegratorLayer<D>;
};

/// The same layer without support for packed sequences.
template <int D>
struct UnawareLayer : IntegratorLayer<D> {
  static constexpr bool takes_packed = moe_mamba::LayerDefaults::takes_packed;
};
struct Unaware {
  template <int D>
  using Layer = UnawareLayer<D>;
};
/// The same under another spelling.
template <class>
struct UnawareOf : Unaware {};
template <>
struct UnawareOf<float> : Unaware {
  static constexpr std::string_view spelling = "Unaware of float";
};

/// A user-defined activation.
struct Sine {
  static constexpr bool gated = false;
  template <class T>
  static T value(T x) {
    return std::sin(x);
  }
  template <class T>
  static T derivative(T x) {
    return std::cos(x);
  }
};

}  // namespace user

using namespace moe_mamba;
using test::Bench;
using user::Integrator;

namespace {

using Net = LanguageModel<Vocabulary<7>, Width<5>, Integrator, Mlp<Hidden<6>, user::Sine>,
                          Repeat<2, Parallel<Integrator, Moe<Experts<3>, TopK<2>, Hidden<4>, user::Sine>>>>;

static_assert(LayerType<Integrator::Layer<5>>);
static_assert(Net::Body::state_size == 3 * 5);
static_assert(cost<Net>.state_bytes == 3 * 5 * 4);
static_assert(cost<LanguageModel<Vocabulary<7>, Width<5>, Integrator>>.parameters == 35 + 5 + 30 + 5);

std::vector<Losses> train(Bench<Net, float>& bench, const test::Data<Net, float>& data, int steps) {
  std::vector<Losses> losses;
  std::vector<float> gradients(static_cast<std::size_t>(Net::parameters));
  for (int step = 0; step < steps; ++step) {
    std::fill(gradients.begin(), gradients.end(), 0.0f);
    losses.push_back(bench.gradient(data, gradients));
    for (std::size_t i = 0; i < gradients.size(); ++i) bench.model.parameters()[i] -= 0.3f * gradients[i];
  }
  return losses;
}

}  // namespace

TEST_CASE("A user's layer has its parameters among the model's", "[model][user]") {
  const auto list = parameter_list<Net>();
  std::vector<std::string> names;
  for (const Parameter& parameter : list) names.emplace_back(parameter.name.view());
  CHECK(names[2] == "layers.0.mixer.in.weight");
  CHECK(names[3] == "layers.0.mixer.leak");
  CHECK(std::count(names.begin(), names.end(), "layers.3.mixer.0.leak") == 1);
}

TEST_CASE("A model with a user's layer has gradients that agree with finite differences on every backend",
          "[model][user]") {
  const Shape shape{2, 5};
  Cpu cpu(Threads{2});
  reference::Device reference;
  auto values = test::parameters<Net>();
  const auto data = test::data<Net, double>(shape);
  Bench<Net> bench(cpu, shape, values);
  Bench<Net, double, reference::Device> other(reference, shape, values);
  auto initial = test::random_states<Net, double>(2);
  const auto dfinal = test::random_states<Net, double>(2, 2);

  std::vector<double> gradients(values.size()), reference_gradients(values.size());
  auto states = initial, dstates = dfinal, reference_states = initial, reference_dstates = dfinal;
  (void)bench.gradient(data, gradients, &states, &dstates);
  (void)other.gradient(data, reference_gradients, &reference_states, &reference_dstates);
  CHECK(test::relative_error(gradients, reference_gradients) <= 1e-12);

  const auto objective = [&](std::uint64_t& decisions) {
    std::copy(values.begin(), values.end(), other.model.parameters().begin());
    auto at = initial;
    double sum = other.loss(data, &at).total();
    for (std::size_t i = 0; i < at.values().size(); ++i) sum += dfinal.values()[i] * at.values()[i];
    decisions = 0;
    other.workspace.visit_routers([&](const RouterReport& report) {
      for (const double load : report.load) decisions = decisions * 31 + static_cast<std::uint64_t>(load);
    });
    return sum;
  };
  for (const Parameter& parameter : parameter_list<Net>()) {
    INFO("gradient w.r.t. " << parameter.name.view());
    test::check_gradient(std::span(values).subspan(static_cast<std::size_t>(parameter.offset),
                                                   static_cast<std::size_t>(parameter.size())),
                         gradients.data() + parameter.offset, 0, 3, objective);
  }
  INFO("gradient w.r.t. the initial states");
  test::check_gradient(initial.values(), dstates.values().data(), 0, 1, objective);
}

TEST_CASE("A user's layer carries its state from call to call", "[model][user]") {
  Cpu device;
  Bench<Net> bench(device, {1, 6}, test::parameters<Net>(), Purpose::inference);
  const std::vector<Token> tokens{1, 2, 3, 4, 5, 6};
  States<Net, double> whole_states, states;
  const auto whole = bench.forward(tokens, {1, 6}, &whole_states);
  for (std::size_t t = 0; t < 6; ++t) {
    std::vector<double> outputs(7);
    bench.model.step(bench.workspace, states, std::span(tokens).subspan(t, 1), outputs);
    CHECK(test::relative_error(outputs, std::vector<double>(whole.begin() + static_cast<std::ptrdiff_t>(7 * t),
                                                            whole.begin() + static_cast<std::ptrdiff_t>(7 * t + 7))) <=
          1e-13);
  }
}

TEST_CASE("A model with a user's layer learns", "[model][user]") {
  Cpu device(Threads{2});
  Bench<Net, float> bench(device, {3, 8}, test::parameters<Net>());
  auto data = test::data<Net, float>({3, 8});
  data.targets = data.inputs;  // the task is to repeat the input
  const auto losses = train(bench, data, 200);
  CHECK(losses.back().prediction < 0.2 * losses.front().prediction);
}

TEST_CASE("A user's layer that declares takes_packed accepts packed sequences, each equal to the sequence alone",
          "[model][user]") {
  // Without experts, whose auxiliary losses are of a whole call.
  using Net = LanguageModel<Vocabulary<7>, Width<5>, Integrator, Repeat<2, Parallel<Integrator, Mlp<Hidden<6>>>>>;
  const std::vector<Index> lengths{5, 0, 1, 8, 3};
  const Shape shape = Shape::packed(lengths);
  Cpu device;
  const auto values = test::parameters<Net>();
  Bench<Net> packed(device, {5, 8}, values), alone(device, {1, 8}, values);
  const auto data = test::data<Net, double>(shape);
  auto states = test::random_states<Net, double>(5), dstates = test::random_states<Net, double>(5, 2);
  const auto initial = states, dfinal = dstates;
  const auto outputs = packed.forward(data.inputs, shape, &states);
  const auto doutputs = test::uniform<double>(shape.tokens() * 7, 5);
  std::vector<double> gradients(values.size()), sum(values.size());
  packed.backward(doutputs, gradients, {}, &dstates);
  const auto numbers = [](const States<Net, double>& all, Index b) {
    const auto values = all.sequence(b);
    return std::vector<double>(values.begin(), values.end());
  };
  std::ptrdiff_t row = 0;
  for (Index b = 0; b < shape.batch; ++b) {
    const Index length = shape.length_of(b);
    const auto part = [&](const auto& all, std::ptrdiff_t width) {
      return std::vector(all.begin() + row * width, all.begin() + (row + length) * width);
    };
    States<Net, double> state(1), dstate(1);
    std::copy_n(initial.sequence(b).begin(), state.state_size, state.values().begin());
    std::copy_n(dfinal.sequence(b).begin(), state.state_size, dstate.values().begin());
    const auto expected = alone.forward(part(data.inputs, 1), {1, length}, &state);
    alone.backward(part(doutputs, 7), sum, {}, &dstate);
    CHECK(test::relative_error(part(outputs, 7), expected) <= 1e-13);
    CHECK(test::relative_error(numbers(states, b), test::numbers(state)) <= 1e-13);
    CHECK(test::relative_error(numbers(dstates, b), test::numbers(dstate)) <= 1e-12);
    row += length;
  }
  CHECK(test::relative_error(gradients, sum) <= 1e-12);
}

TEST_CASE("A user's layer without takes_packed is refused on packed sequences at any position", "[model][user]") {
  using user::Unaware;
  const auto check_refused = []<class Definition>(Definition*, const std::string& name) {
    const std::vector<Index> lengths{2, 3};
    const std::vector<Token> tokens{1, 2, 3, 4, 5};
    const Shape shape = Shape::packed(lengths);
    const auto refusal = "shape.lengths is given; allowed: none, as the layer " + name +
                         " does not say takes_packed: sequences must be equally long";
    Cpu device;
    Model<Definition> model(Seed{1});
    Workspace<Definition> workspace(device, {8, 8}, Purpose::training);
    std::vector<float> outputs(5 * 7), gradients(static_cast<std::size_t>(Definition::parameters));
    CHECK_THROWS_WITH(model.forward(workspace, tokens, shape, outputs), refusal);
    CHECK_THROWS_WITH(model.loss(workspace, tokens, tokens, shape), refusal);
    CHECK_THROWS_WITH(model.gradient(workspace, tokens, tokens, shape, gradients), refusal);
    CHECK_THROWS_WITH(Trainer(model).step(TokenBatch{tokens, tokens, shape}), refusal);
    CHECK_NOTHROW(model.forward(workspace, tokens, {1, 5}, outputs));
  };
  using V = Vocabulary<7>;
  using W = Width<5>;
  using user::UnawareOf;
  const std::string name = detail::shown_name<Unaware>();
  check_refused(static_cast<LanguageModel<V, W, Unaware>*>(nullptr), name);
  check_refused(static_cast<LanguageModel<V, W, Mlp<>, Repeat<2, Integrator, Unaware>, Mlp<>>*>(nullptr), name);
  check_refused(static_cast<LanguageModel<V, Sequence<Mlp<>, Parallel<Integrator, Unaware>>, W>*>(nullptr), name);
  check_refused(static_cast<LanguageModel<V, W, Residual<NoNorm, Parallel<Unaware, Mlp<>>>>*>(nullptr), name);
  check_refused(static_cast<LanguageModel<V, W, UnawareOf<int>, Unaware>*>(nullptr),
                detail::shown_name<UnawareOf<int>>());
  check_refused(static_cast<LanguageModel<V, W, Parallel<Mlp<>, UnawareOf<float>>>*>(nullptr), "Unaware of float");
}
