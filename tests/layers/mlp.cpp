// Feed-forward layers, parallel layers and norms against the naive implementations, forward and backward.
#include "moe_mamba/language/mlp.hpp"

#include "layers/harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"

using namespace moe_mamba;

namespace {

enum class Dx { overwritten, added_to };

template <class Layer, class NaiveLayer>
void check_layer(Index width, Shape shape, Dx dx, const NaiveLayer& naive_layer) {
  test::LayerComparison<Layer> comparison(shape, width, naive_layer, 1);
  INFO("B = " << shape.batch << ", L = " << shape.length << ", D = " << width);
  Cpu cpu(Threads{2});
  reference::Device reference;
  // The two sum in different orders: a few dozen roundings of 2⁻⁵³, and in float of 2⁻²⁴.
  comparison.template check_forward<double>(cpu, 1e-13);
  comparison.template check_forward<double>(reference, 1e-13);
  comparison.template check_forward<float>(cpu, 1e-5);
  comparison.check_backward(cpu, dx == Dx::added_to);
  comparison.check_backward(reference, dx == Dx::added_to);
}

template <class Activation, int Width, int Size>
void check_mlp(naive::Activation activation) {
  for (const Shape shape : {Shape{1, 0}, Shape{1, 1}, Shape{2, 3}}) {
    check_layer<typename Mlp<Activation, Hidden<Size>>::template Layer<Width>>(
        Width, shape, Dx::overwritten,
        [&](naive::Run& run, const naive::Matrix& x) { return naive::mlp(activation, Size, run, "", x); });
  }
}

}  // namespace

TEST_CASE("A feed-forward layer with a plain activation computes what the formulas say", "[layers][mlp]") {
  check_mlp<Relu, 5, 7>(naive::Activation::relu);
  check_mlp<Gelu, 1, 3>(naive::Activation::gelu);
  check_mlp<Silu, 3, 1>(naive::Activation::silu);
}

TEST_CASE("A feed-forward layer with a gated activation computes what the formulas say", "[layers][mlp]") {
  check_mlp<SwiGlu, 4, 5>(naive::Activation::swiglu);
  check_mlp<GeGlu, 3, 2>(naive::Activation::geglu);
}

TEST_CASE("Parallel layers read one input and are added", "[layers][parallel]") {
  using Both = Parallel<Parallel<Mamba<State<2>, Expand<1>>, Moe<Experts<2>, Hidden<2>, Silu>>, Mamba<State<1>>>;
  check_layer<Both::Layer<3>>(3, {2, 4}, Dx::overwritten, [](naive::Run& run, const naive::Matrix& x) {
    const naive::Matrix first = naive::mamba({3, 2, 4, 1}, run, "0.0.", x);
    const naive::Matrix second =
        naive::moe({.experts = 2, .hidden = 2, .activation = naive::Activation::silu}, run, "0.1.", x);
    return naive::sum(naive::sum(first, second), naive::mamba({6, 1, 4, 1}, run, "1.", x));
  });
}

TEST_CASE("Norms compute what the formulas say, and add to the gradient of their input", "[layers][norm]") {
  for (const Shape shape : {Shape{1, 0}, Shape{1, 1}, Shape{2, 3}}) {
    check_layer<RmsNorm<>::Layer<5>>(5, shape, Dx::added_to, [](naive::Run& run, const naive::Matrix& x) {
      return naive::norm({naive::NormKind::rms, 1e-5}, run.weights, "", x);
    });
    check_layer<LayerNorm<Epsilon<1, 4>>::Layer<7>>(
        7, shape, Dx::added_to, [](naive::Run& run, const naive::Matrix& x) {
          return naive::norm({naive::NormKind::layer, 0.25}, run.weights, "", x);
        });
    check_layer<NoNorm::Layer<3>>(3, shape, Dx::added_to, [](naive::Run&, const naive::Matrix& x) { return x; });
  }
}
