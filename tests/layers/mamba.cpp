// The Mamba block against the naive implementation, forward and backward.
#include "moe_mamba/language/mamba.hpp"

#include "layers/harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"

using namespace moe_mamba;

namespace {

template <class Layer, class... Backends>
void check_mamba(Index width, naive::Mamba sizes, Shape shape, Index stride) {
  test::LayerComparison<Layer> comparison(
      shape, width, [&](naive::Run& run, const naive::Matrix& x) { return naive::mamba(sizes, run, "", x); }, 1);
  INFO("B = " << shape.batch << ", L = " << shape.length << ", E = " << sizes.E << ", N = " << sizes.N);
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

TEST_CASE("A Mamba block computes what the formulas say, and its gradient", "[layers][mamba]") {
  using Small = Mamba<State<3>, Expand<2>, StepRank<2>>::Layer<5>;
  for (const Shape shape : {Shape{1, 1}, Shape{2, 3}, Shape{3, 7}}) check_mamba<Small>(5, {10, 3, 4, 2}, shape, 3);
}

TEST_CASE("A Mamba block of one state, one tap and one channel's width computes what the formulas say",
          "[layers][mamba]") {
  check_mamba<Mamba<State<1>, Convolution<1>, Expand<1>>::Layer<1>>(1, {1, 1, 1, 1}, {2, 5}, 1);
}

TEST_CASE("A Mamba block has gradients across the chunks that its scan recomputes", "[layers][mamba]") {
  check_mamba<Mamba<State<2>, Convolution<2>, Expand<3>, StepRank<1>>::Layer<3>>(
      3, {9, 2, 2, 1}, {1, 2 * scan_checkpoint_interval + 1}, 29);
}

TEST_CASE("A Mamba block leaves its states unchanged for sequences of length 0", "[layers][mamba]") {
  check_mamba<Mamba<State<3>, Expand<2>, StepRank<2>>::Layer<5>>(5, {10, 3, 4, 2}, {2, 0}, 7);
}

TEST_CASE("A Mamba block with inner norms computes what the formulas say, and its gradient", "[layers][mamba]") {
  using Plain = Mamba<State<3>, StepRank<2>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1000>>>>::Layer<5>;
  using Gains = Mamba<State<3>, StepRank<2>, InnerNorm<RmsNorm<Epsilon<1, 100>>>>::Layer<5>;
  using Biased = Mamba<State<3>, StepRank<2>, InnerNorm<LayerNorm<Epsilon<1, 10>>>>::Layer<5>;
  static_assert(parameters_of<Gains> == parameters_of<Plain> + 2 + 3 + 3);
  for (const Shape shape : {Shape{1, 1}, Shape{2, 3}, Shape{1, scan_checkpoint_interval + 1}}) {
    const Index stride = shape.tokens() > 6 ? 17 : 3;
    check_mamba<Plain>(5, {10, 3, 4, 2, {naive::NormKind::rms, 1e-3, false}}, shape, stride);
    check_mamba<Gains>(5, {10, 3, 4, 2, {naive::NormKind::rms, 1e-2}}, shape, stride);
    check_mamba<Biased>(5, {10, 3, 4, 2, {naive::NormKind::layer, 1e-1}}, shape, stride);
  }
}

TEST_CASE(
    "A Mamba block with biases of its projections and without one of its convolution computes what the formulas say",
    "[layers][mamba]") {
  using Layer = Mamba<State<3>, StepRank<2>, ProjectionBias, NoConvolutionBias>::Layer<5>;
  static_assert(parameters_of<Layer> == parameters_of<Mamba<State<3>, StepRank<2>>::Layer<5>> + 20 + 5 - 10);
  for (const Shape shape : {Shape{1, 1}, Shape{2, 7}}) {
    check_mamba<Layer>(5, {10, 3, 4, 2, {naive::NormKind::none, 0}, true, false}, shape, 3);
  }
}
