// Mixtures of experts against the naive implementation, forward and backward.
#include "moe_mamba/language/moe.hpp"

#include "layers/harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"

using namespace moe_mamba;

namespace {

template <class Layer>
void check_moe(Index width, const naive::Moe& config, Shape shape, std::uint64_t seed = 1) {
  test::LayerComparison<Layer> comparison(
      shape, width, [&](naive::Run& run, const naive::Matrix& x) { return naive::moe(config, run, "", x); }, seed);
  INFO("B = " << shape.batch << ", L = " << shape.length << ", E = " << config.experts << ", K = " << config.top_k);
  Cpu cpu(Threads{2});
  reference::Device reference;
  // The two sum in different orders: a few dozen roundings of 2⁻⁵³, and in float of 2⁻²⁴; no two experts of these draws
  // are so close that rounding would choose the other.
  comparison.template check_forward<double>(cpu, 1e-13);
  comparison.template check_forward<double>(reference, 1e-13);
  comparison.template check_forward<float>(cpu, 1e-5);
  comparison.check_backward(cpu, false, 2);
  comparison.check_backward(reference, false, 2);
}

}  // namespace

TEST_CASE("A mixture with one expert per token computes what the formulas say, and its gradient", "[layers][moe]") {
  using Layer = Moe<Experts<4>, TopK<1>, Hidden<3>, Gelu, ZLoss<1, 10>, BalanceLoss<1, 5>>::Layer<5>;
  const naive::Moe config{.experts = 4, .hidden = 3, .activation = naive::Activation::gelu, .balance = 0.2, .z = 0.1};
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}, Shape{1, 17}}) check_moe<Layer>(5, config, shape);
}

TEST_CASE("A mixture with two experts per token and renormalised gates computes what the formulas say",
          "[layers][moe]") {
  using Layer = Moe<Experts<5>, TopK<2>, Hidden<3>, SwiGlu, TopKThenSoftmax, ZLoss<1, 10>, SharedExperts<2>>::Layer<4>;
  const naive::Moe config{.experts = 5,
                          .top_k = 2,
                          .hidden = 3,
                          .shared = 2,
                          .activation = naive::Activation::swiglu,
                          .renormalise = true,
                          .z = 0.1};
  for (const Shape shape : {Shape{1, 1}, Shape{3, 4}}) check_moe<Layer>(4, config, shape);
}

TEST_CASE("A mixture with sigmoid gates and a biased router computes what the formulas say", "[layers][moe]") {
  using One = Moe<Experts<4>, Hidden<3>, GeGlu, SigmoidThenTopK, RouterBias, ZLoss<1, 10>>::Layer<5>;
  using Two = Moe<Experts<4>, TopK<2>, Hidden<3>, GeGlu, SigmoidThenTopK, SharedExperts<1>>::Layer<5>;
  const naive::Moe one{.experts = 4,
                       .hidden = 3,
                       .activation = naive::Activation::geglu,
                       .sigmoid = true,
                       .router_bias = true,
                       .z = 0.1};
  const naive::Moe two{
      .experts = 4, .top_k = 2, .hidden = 3, .shared = 1, .activation = naive::Activation::geglu, .sigmoid = true};
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) {
    check_moe<One>(5, one, shape);
    check_moe<Two>(5, two, shape);
  }
}

TEST_CASE("A mixture whose experts a bias selects computes what the formulas say", "[layers][moe]") {
  // Draws of parameters are as large as scores, so that the bias changes choices.
  using Softmax = Moe<Experts<5>, Hidden<3>, SelectionBias, GateScale<3>>::Layer<4>;
  using Shares = Moe<Experts<5>, TopK<2>, Hidden<3>, TopKThenSoftmax, SelectionBias, RouterBias>::Layer<4>;
  using Sigmoids = Moe<Experts<6>, TopK<3>, Hidden<3>, SwiGlu, SelectionBias, GateScale<5, 2>, NormalisedGates,
                       SigmoidThenTopK, SharedExperts<1>, ZLoss<1, 10>>::Layer<4>;
  const naive::Moe softmax{.experts = 5, .hidden = 3, .gate_scale = 3, .selection_bias = true};
  const naive::Moe shares{
      .experts = 5, .top_k = 2, .hidden = 3, .renormalise = true, .router_bias = true, .selection_bias = true};
  const naive::Moe sigmoids{.experts = 6,
                            .top_k = 3,
                            .hidden = 3,
                            .shared = 1,
                            .activation = naive::Activation::swiglu,
                            .sigmoid = true,
                            .normalise = true,
                            .gate_scale = 2.5,
                            .selection_bias = true,
                            .z = 0.1};
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) {
    check_moe<Softmax>(4, softmax, shape);
    check_moe<Shares>(4, shares, shape);
    check_moe<Sigmoids>(4, sigmoids, shape);
  }
}

TEST_CASE("A mixture whose tokens go to all experts computes what the formulas say", "[layers][moe]") {
  using Layer = Moe<Experts<3>, TopK<3>, Hidden<2>, SquaredRelu, SoftmaxThenTopK>::Layer<3>;
  check_moe<Layer>(3, {.experts = 3, .top_k = 3, .hidden = 2, .activation = naive::Activation::squared_relu}, {2, 4});
}

TEST_CASE("A mixture of one expert computes what the formulas say", "[layers][moe]") {
  check_moe<Moe<Experts<1>, Hidden<2>>::Layer<3>>(3, {.hidden = 2}, {2, 3});
}

TEST_CASE("A mixture of limited capacity drops the latest tokens and reports them", "[layers][moe]") {
  using Layer = Moe<Experts<3>, TopK<2>, Hidden<4>, GeGlu, Capacity<3, 4>>::Layer<4>;
  const naive::Moe config{.experts = 3,
                          .top_k = 2,
                          .hidden = 4,
                          .activation = naive::Activation::geglu,
                          .capacity_numerator = 3,
                          .capacity_denominator = 4};
  for (const Shape shape : {Shape{1, 1}, Shape{2, 7}, Shape{3, 3}}) check_moe<Layer>(4, config, shape);

  test::LayerComparison<Layer> comparison(
      {2, 7}, 4, [&](naive::Run& run, const naive::Matrix& x) { return naive::moe(config, run, "", x); }, 1);
  CHECK(comparison.expected().run.routers[0].dropped > 0);
}

TEST_CASE("Capacity may be rounded down, to zero", "[layers][moe]") {
  using Layer = Moe<Experts<3>, TopK<2>, Hidden<4>, GeGlu, FloorCapacity<3, 4>, SharedExperts<1>>::Layer<4>;
  const naive::Moe config{.experts = 3,
                          .top_k = 2,
                          .hidden = 4,
                          .shared = 1,
                          .activation = naive::Activation::geglu,
                          .capacity_numerator = 3,
                          .capacity_denominator = 4,
                          .floor_capacity = true};
  // Capacities of floor(T / 2): 0, 0, 1, 4, 7 and 3.
  for (const Shape shape : {Shape{2, 0}, Shape{1, 1}, Shape{1, 3}, Shape{3, 3}, Shape{2, 7}, Shape{1, 6}}) {
    check_moe<Layer>(4, config, shape);
  }
  // The code of MoE-Mamba has a capacity of 1560 for each of 42 experts, with 64 sequences of 1024 tokens.
  using Paper = Routing<8, RoutingOptions{.experts = 42, .capacity = {1, 1}, .floor_capacity = true}>;
  using Switch = Routing<8, RoutingOptions{.experts = 42, .capacity = {1, 1}}>;
  static_assert(Paper::capacity(64 * 1024) == 1560 && Switch::capacity(64 * 1024) == 1561);
  static_assert(Paper::capacity(41) == 0 && Paper::capacity(42) == 1 && Paper::capacity(83) == 1);
  static_assert(Switch::capacity(41) == 1 && Switch::capacity(42) == 1 && Switch::capacity(83) == 2);
}

TEST_CASE("A mixture of zero capacity drops all assignments, which train no expert but count in the router's losses",
          "[layers][moe]") {
  using Layer = Moe<Experts<5>, TopK<2>, Hidden<3>, Silu, FloorCapacity<1>, ZLoss<1>>::Layer<4>;
  test::LayerComparison<Layer> comparison(
      {1, 2}, 4,
      [](naive::Run& run, const naive::Matrix& x) {
        return naive::moe({.experts = 5,
                           .top_k = 2,
                           .hidden = 3,
                           .activation = naive::Activation::silu,
                           .capacity_numerator = 1,
                           .floor_capacity = true,
                           .z = 1},
                          run, "", x);
      },
      1);
  CHECK(comparison.expected().run.routers[0].dropped == 4);
  Cpu cpu(Threads{2});
  comparison.check_forward<double>(cpu, 1e-13);
  comparison.check_backward(cpu, false, 2);
}

TEST_CASE("A mixture reads no tokens and reports none", "[layers][moe]") {
  using Layer = Moe<Experts<4>, TopK<2>, Hidden<3>, Silu, Capacity<1>, SharedExperts<1>, ZLoss<1>>::Layer<5>;
  check_moe<Layer>(5,
                   {.experts = 4,
                    .top_k = 2,
                    .hidden = 3,
                    .shared = 1,
                    .activation = naive::Activation::silu,
                    .capacity_numerator = 1,
                    .z = 1},
                   {2, 0});
}

TEST_CASE("The balance loss is its coefficient for even routing, and times the number of experts for a single expert",
          "[layers][moe]") {
  // Three experts; token i is the i-th unit vector and the router a large multiple of the identity, so that token i
  // goes to expert i with a probability of 1 up to rounding.
  using Layer = Moe<Experts<3>, TopK<1>, Hidden<1>, BalanceLoss<1, 4>, ZLoss<1, 2>>::Layer<3>;
  std::vector<double> parameters(static_cast<std::size_t>(parameters_of<Layer>));
  for (std::size_t i = 0; i < 3; ++i) parameters[4 * i] = 50;
  Cpu device;
  const auto losses = [&](std::vector<double> x) {
    test::LayerRun<Layer, double, Cpu> layer(device, {1, static_cast<Index>(x.size()) / 3}, 3, parameters, {});
    (void)layer.forward(x);
    std::pair<double, double> reported;
    Layer::visit_routers(
        [&](const RouterReport& report) {
          reported = {report.balance_loss, report.z_loss};
        },
        layer.report.data());
    return reported;
  };
  const auto [even, even_z] = losses({1, 0, 0, 0, 1, 0, 0, 0, 1});
  const auto close = [](double value, double exact) { return std::abs(value - exact) <= 1e-14 * exact; };
  CHECK(close(even, 0.25));
  CHECK(close(even_z, 0.5 * 50 * 50));
  const auto [uneven, uneven_z] = losses({0, 1, 0, 0, 1, 0, 0, 1, 0});
  CHECK(close(uneven, 0.25 * 3));
  // All logits equal: every probability a third, all tokens to the lowest expert.
  const auto [tied, tied_z] = losses({0, 0, 0, 0, 0, 0});
  CHECK(close(tied, 0.25));
  CHECK(close(tied_z, 0.5 * std::log(3.0) * std::log(3.0)));
}

TEST_CASE("A NaN of a selection bias makes all outputs NaN, and an infinite one does not", "[layers][moe]") {
  const auto outputs = []<class Device, class Layer>(Device&& device, std::type_identity<Layer>, double bias) {
    auto parameters = test::uniform<double>(parameters_of<Layer>, 5);
    for (const Parameter& parameter : layer_parameters<Layer>) {
      if (parameter.kind == ParameterKind::selection_bias)
        parameters[static_cast<std::size_t>(parameter.offset) + 1] = bias;
    }
    test::LayerRun<Layer, double, std::remove_reference_t<Device>> layer(device, {1, 4}, 3, parameters, {});
    return layer.forward(test::uniform<double>(12, 6));
  };
  const auto check = [&]<class Layer>(std::type_identity<Layer> layer) {
    for (const double y : outputs(Cpu(), layer, std::nan(""))) CHECK(std::isnan(y));
    for (const double y : outputs(reference::Device(), layer, std::nan(""))) CHECK(std::isnan(y));
    for (const double y : outputs(Cpu(), layer, -INFINITY)) CHECK(std::isfinite(y));
  };
  check(std::type_identity<Moe<Experts<5>, Hidden<2>, SelectionBias>::Layer<3>>{});
  check(std::type_identity<Moe<Experts<5>, TopK<2>, Hidden<2>, SelectionBias, SigmoidThenTopK>::Layer<3>>{});
  check(std::type_identity<Moe<Experts<5>, TopK<2>, Hidden<2>, SelectionBias, TopKThenSoftmax>::Layer<3>>{});
}

TEST_CASE("Ties between experts go to the lowest index", "[layers][moe]") {
  using Layer = Moe<Experts<5>, TopK<2>, Hidden<1>>::Layer<2>;
  const std::vector<double> parameters(static_cast<std::size_t>(parameters_of<Layer>));
  Cpu device;
  test::LayerRun<Layer, float, Cpu> layer(device, {1, 3}, 2, parameters, {});
  (void)layer.forward({1, 2, 3, 4, 5, 6});
  Layer::visit_routers(
      [](const RouterReport& report) {
        CHECK(std::vector<double>(report.load.begin(), report.load.end()) == std::vector<double>{3, 3, 0, 0, 0});
      },
      layer.report.data());
}
