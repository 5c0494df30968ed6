// Mamba blocks with experts in their projections against the naive implementation, forward and backward.
#include "layers/harness.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"

using namespace moe_mamba;

namespace {

/// Blocks of width 5, inner width 6, 3 states, 4 taps and step rank 2.
template <class... Options>
using Block = Mamba<State<3>, Inner<6>, StepRank<2>, Options...>;

template <class Definition>
void check_block(const naive::MambaExperts& experts, std::initializer_list<Shape> shapes) {
  using Layer = typename Definition::template Layer<5>;
  naive::Mamba sizes{.E = 6, .N = 3, .K = 4, .R = 2};
  sizes.experts = experts;
  Cpu cpu(Threads{2});
  reference::Device reference;
  for (const Shape shape : shapes) {
    INFO("B = " << shape.batch << ", L = " << shape.length);
    test::LayerComparison<Layer> comparison(
        shape, 5, [&](naive::Run& run, const naive::Matrix& x) { return naive::mamba(sizes, run, "", x); }, 3);
    // As for blocks without experts; no two experts of these draws are so close that rounding would choose the other.
    comparison.template check_forward<double>(cpu, 1e-13);
    comparison.template check_forward<double>(reference, 1e-13);
    comparison.template check_forward<float>(cpu, 1e-5);
    comparison.check_backward(cpu, false, 3);
    comparison.check_backward(reference, false, 3);
  }
}

/// Checks packed sequences against single ones, chunks against the whole, and gradients against finite differences.
template <class Definition>
void check_as_layer() {
  Cpu device(Threads{2});
  const LayerCheck check = moe_mamba::check_layer<Definition, 5>(device);
  INFO(check.text());
  CHECK(check.passed());
}

}  // namespace

TEST_CASE("Experts of one router in every projection of a Mamba block compute what the formulas say",
          "[layers][mamba][moe]") {
  using All = Block<InputExperts<4>, GateExperts<4>, OutputExperts<4>>;
  check_block<All>({.input = 4, .gate = 4, .output = 4}, {{1, 1}, {2, 3}, {3, 7}, {2, 0}});
  check_as_layer<All>();
}

TEST_CASE("A Mamba block supports any top-k, order of gates and loss of a router", "[layers][mamba][moe]") {
  using Two = Block<InputExperts<5>, GateExperts<5>, OutputExperts<5>, TopK<2>, TopKThenSoftmax, ZLoss<1, 10>>;
  check_block<Two>({.input = 5, .gate = 5, .output = 5, .routing = {.top_k = 2, .renormalise = true, .z = 0.1}},
                   {{1, 1}, {2, 5}});
  using Sigmoid = Block<InputExperts<3>, OutputExperts<3>, SigmoidThenTopK, RouterBias, BalanceLoss<1, 5>>;
  check_block<Sigmoid>({.input = 3, .output = 3, .routing = {.sigmoid = true, .router_bias = true, .balance = 0.2}},
                       {{2, 5}});
  using All = Block<GateExperts<3>, OutputExperts<3>, TopK<3>, BalanceLoss<0>>;
  check_block<All>({.gate = 3, .output = 3, .routing = {.top_k = 3, .balance = 0}}, {{2, 4}});
  check_as_layer<Two>();
  check_as_layer<Sigmoid>();
}

TEST_CASE(
    "Routers inside a Mamba block may have selection biases, normalised and scaled gates, and places rounded down",
    "[layers][mamba][moe]") {
  using Biased = Block<InputExperts<4>, GateExperts<4>, OutputExperts<4>, TopK<2>, SigmoidThenTopK, NormalisedGates,
                       GateScale<5, 2>, SelectionBias>;
  check_block<Biased>(
      {.input = 4,
       .gate = 4,
       .output = 4,
       .routing = {.top_k = 2, .sigmoid = true, .normalise = true, .gate_scale = 2.5, .selection_bias = true}},
      {{1, 1}, {2, 5}});
  using Separate = Block<InputExperts<3>, OutputExperts<2>, SeparateRouters, SelectionBias, FloorCapacity<1>>;
  check_block<Separate>({.input = 3,
                         .output = 2,
                         .separate = true,
                         .routing = {.selection_bias = true, .capacity_numerator = 1, .floor_capacity = true}},
                        {{2, 5}});
}

TEST_CASE("Experts in one projection of a Mamba block are weighted by their gates", "[layers][mamba][moe]") {
  check_block<Block<InputExperts<4>>>({.input = 4}, {{1, 1}, {2, 5}});
  check_block<Block<GateExperts<4>, TopK<2>>>({.gate = 4, .routing = {.top_k = 2}}, {{2, 5}});
  check_block<Block<OutputExperts<4>>>({.output = 4}, {{2, 5}});
  check_block<Block<InputExperts<4>, GateExperts<4>>>({.input = 4, .gate = 4}, {{2, 5}});
  check_block<Block<InputExperts<1>>>({.input = 1}, {{2, 3}});
}

TEST_CASE("A router for each projection of a Mamba block chooses by the projection's input", "[layers][mamba][moe]") {
  using Linear = Block<InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters>;
  check_block<Linear>({.input = 2, .gate = 3, .output = 4, .separate = true}, {{1, 1}, {2, 5}, {2, 0}});
  using Some = Block<GateExperts<3>, OutputExperts<2>, SeparateRouters, TopK<2>>;
  check_block<Some>({.gate = 3, .output = 2, .separate = true, .routing = {.top_k = 2}}, {{2, 5}});
  check_as_layer<Linear>();
}

TEST_CASE("Experts with a hidden layer and limited places, as in the MoE-Mamba paper, compute what the formulas say",
          "[layers][mamba][moe]") {
  using Paper = Block<InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters, Hidden<7>, Capacity<1>>;
  const naive::MambaExperts paper{
      .input = 2, .gate = 3, .output = 4, .hidden = 7, .separate = true, .routing = {.capacity_numerator = 1}};
  check_block<Paper>(paper, {{1, 1}, {2, 5}, {3, 7}});
  using Shared = Block<InputExperts<3>, GateExperts<3>, OutputExperts<3>, Hidden<4>, SwiGlu, SharedRouter>;
  check_block<Shared>(
      {.input = 3, .gate = 3, .output = 3, .hidden = 4, .routing = {.activation = naive::Activation::swiglu}},
      {{2, 5}});
  check_as_layer<Shared>();
}

TEST_CASE("Experts inside a Mamba block combine with inner norms and any convolution", "[layers][mamba][moe]") {
  check_as_layer<Block<InputExperts<2>, OutputExperts<3>, SeparateRouters, TopK<2>, Hidden<3>, GeGlu,
                       InnerNorm<RmsNorm<>>, NoConvolutionBias, Convolution<1>>>();
  check_as_layer<Block<OutputExperts<3>, InnerNorm<LayerNorm<>>, Convolution<7>, SigmoidThenTopK, RouterBias>>();
}

TEST_CASE("Reports of a Mamba block's routers name their projection", "[layers][mamba][moe]") {
  const auto projections = []<class Layer>(std::type_identity<Layer>) {
    std::vector<RoutedProjection> found;
    const std::vector<double> report(static_cast<std::size_t>(Layer::report_size));
    Layer::visit_routers([&](const RouterReport& router) { found.push_back(router.projection); }, report.data());
    return found;
  };
  using enum RoutedProjection;
  using Shared = Block<InputExperts<4>, GateExperts<4>, OutputExperts<4>>::Layer<5>;
  using Separate = Block<InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters>::Layer<5>;
  using Output = Block<InputExperts<2>, OutputExperts<4>, SeparateRouters>::Layer<5>;
  CHECK(projections(std::type_identity<Shared>{}) == std::vector{all});
  CHECK(projections(std::type_identity<Separate>{}) == std::vector{input, gate, output});
  CHECK(projections(std::type_identity<Output>{}) == std::vector{input, output});
  CHECK(projections(std::type_identity<Block<>::Layer<5>>{}).empty());
}

TEST_CASE("The inner width of a Mamba block is Inner, or Expand times the width", "[layers][mamba]") {
  static_assert(parameters_of<Mamba<Inner<10>>::Layer<5>> == parameters_of<Mamba<Expand<2>>::Layer<5>>);
  // Counted by hand: in_proj 2 · 7 · 6, conv1d 7 · 5, x_proj 7 · (1 + 32), dt_proj 7 · 2, A and D 7 · 17, out_proj 6 ·
  // 7.
  static_assert(parameters_of<Mamba<Inner<7>>::Layer<6>> == 84 + 35 + 231 + 14 + 119 + 42);
  using Routed = Mamba<Inner<7>, InputExperts<4>, GateExperts<4>, OutputExperts<4>, TopK<2>>::Layer<6>;
  static_assert(parameters_of<Routed> == 4 * 84 + 35 + 231 + 14 + 119 + 4 * 42 + 4 * 6);
  static_assert(Routed::active_parameters == 2 * 84 + 35 + 231 + 14 + 119 + 2 * 42 + 4 * 6);
  static_assert(Routed::state_size == Mamba<Inner<7>>::Layer<6>::state_size);
  SUCCEED();
}
