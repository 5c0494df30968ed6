// Attention against the naive implementation, forward and backward.
#include "moe_mamba/language/attention.hpp"

#include "layers/harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"

using namespace moe_mamba;

namespace {

/// Sequence b has read reads[b] tokens.
template <class Layer>
void check_attention(Index width, naive::Attention sizes, Index length, const std::vector<Index>& reads, Index stride) {
  const Shape shape{static_cast<Index>(reads.size()), length};
  test::LayerComparison<Layer> comparison(
      shape, width, [&](naive::Run& run, const naive::Matrix& x) { return naive::attention(sizes, run, "", x); }, 1);
  for (std::size_t b = 0; b < reads.size(); ++b) {
    write_position(reads[b],
                   comparison.states.data() + static_cast<Index>(b + 1) * Layer::state_size - position_digits);
  }
  INFO("B = " << shape.batch << ", L = " << length << ", H = " << sizes.H << ", G = " << sizes.G
              << ", d = " << sizes.d);
  Cpu cpu(Threads{2});
  reference::Device reference;
  // The two sum in different orders: about a hundred roundings of 2⁻⁵³, and in float of 2⁻²⁴.
  comparison.template check_forward<double>(cpu, 1e-13);
  comparison.template check_forward<double>(reference, 1e-13);
  comparison.template check_forward<float>(cpu, 1e-5);
  comparison.check_backward(cpu, false, stride);
  comparison.check_backward(reference, false, stride);
}

}  // namespace

TEST_CASE("Attention computes what the formulas say, and its gradient", "[layers][attention]") {
  using Grouped = Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<4>, Context<5>>::Layer<6>;
  const naive::Attention sizes{4, 2, 4, 5, 4, 10000, false, false};
  check_attention<Grouped>(6, sizes, 1, {0, 3, 5, 27}, 3);
  check_attention<Grouped>(6, sizes, 4, {0, 3, 11}, 5);
  check_attention<Grouped>(6, sizes, 13, {2, 5}, 5);
  check_attention<Grouped>(6, sizes, 0, {2, 7}, 5);
}

TEST_CASE("Attention with all defaults computes what the formulas say", "[layers][attention]") {
  check_attention<Attention<Heads<3>, Context<7>>::Layer<12>>(12, {3, 3, 4, 7, 4, 10000, false, false}, 9, {0, 6}, 7);
}

TEST_CASE("Attention without positions, with biases or partly rotated computes what the formulas say",
          "[layers][attention]") {
  check_attention<Attention<Heads<2>, Context<4>, NoPositions, HeadWidth<3>, Biases>::Layer<5>>(
      5, {2, 2, 3, 4, 0, 1, true, true}, 6, {0, 9}, 3);
  check_attention<Attention<Heads<2>, KeyValueHeads<1>, Context<3>, HeadWidth<7>, RotaryWidth<4>, Rotary<50>,
                            InputBiases>::Layer<5>>(5, {2, 1, 7, 3, 4, 50, true, false}, 6, {1, 2}, 5);
}

TEST_CASE("Attention over one position is a linear map of the step", "[layers][attention]") {
  check_attention<Attention<Heads<1>, Context<1>, HeadWidth<2>>::Layer<1>>(1, {1, 1, 2, 1, 2, 10000, false, false}, 4,
                                                                           {0, 3}, 1);
}

TEST_CASE("Attention handles positions beyond the integers of float", "[layers][attention]") {
  check_attention<Attention<Heads<1>, Context<3>, HeadWidth<2>>::Layer<2>>(2, {1, 1, 2, 3, 2, 10000, false, false}, 4,
                                                                           {(Index{1} << 25) + 1}, 1);
}

TEST_CASE("Attention's parameters have the names and shapes of public checkpoints", "[layers][attention]") {
  using Layer = Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<8>, Biases>::Layer<10>;
  constexpr struct {
    std::string_view name;
    Index rows, columns;
  } expected[] = {{"q_proj.weight", 24, 10}, {"k_proj.weight", 12, 10}, {"v_proj.weight", 12, 10},
                  {"o_proj.weight", 10, 24}, {"q_proj.bias", 24, 1},    {"k_proj.bias", 12, 1},
                  {"v_proj.bias", 12, 1},    {"o_proj.bias", 10, 1}};
  REQUIRE(layer_parameters<Layer>.size() == std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    CHECK(layer_parameters<Layer>[i].name.view() == expected[i].name);
    CHECK(layer_parameters<Layer>[i].shape[0] == expected[i].rows);
    CHECK(layer_parameters<Layer>[i].shape[1] == expected[i].columns);
    CHECK((layer_parameters<Layer>[i].kind == ParameterKind::matrix) == (i < 4));
  }
}
