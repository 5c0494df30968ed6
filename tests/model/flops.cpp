// The counted cost of a definition against an instrumented run of it.
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/reference.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

/// A backend that counts operations and delegates them to the reference. Operations that are not here are not
/// counted and found in the namespace of the reference's device.
namespace counting {

struct Device : reference::Device {
  double forward = 0, backward = 0;
  reference::Device& reference() { return *this; }
};

double product(Index rows, Index in, Index out) {
  return 2 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
}
double convolution(Shape shape, Index channels, int taps) {
  return 2.0 * taps * static_cast<double>(shape.tokens() * channels);
}
double scan(Shape shape, Index channels, int states) {
  return 7.0 * states * static_cast<double>(shape.tokens() * channels);
}

template <class X, class C, class S>
void linear(Device& device, MatrixView<X> x, MatrixView<const S> weight, MatrixView<C> y) {
  device.forward += product(x.rows, x.columns, y.columns);
  reference::linear(device.reference(), x, weight, y);
}
template <class Y, class C, class S>
void linear_backward_input(Device& device, MatrixView<Y> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  device.backward += product(dy.rows, dx.columns, dy.columns);
  reference::linear_backward_input(device.reference(), dy, weight, dx, into);
}
template <class S, class Y, class X, class C>
void linear_backward_weight(Device& device, MatrixView<Y> dy, MatrixView<X> x, MatrixView<C> dweight) {
  device.backward += product(dy.rows, x.columns, dy.columns);
  reference::linear_backward_weight<S>(device.reference(), dy, x, dweight);
}
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  device.forward += product(groups.offsets[groups.count], weight.columns, weight.rows);
  reference::grouped_linear(device.reference(), groups, x, weight, y);
}
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  device.backward += product(groups.offsets[groups.count], weight.columns, weight.rows);
  reference::grouped_linear_backward_input(device.reference(), groups, dy, weight, dx, into);
}
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, ScatteredRows<C> y) {
  device.forward += product(groups.offsets[groups.count], weight.columns, weight.rows);
  reference::grouped_linear(device.reference(), groups, x, weight, y);
}
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   ScatteredRows<C> dx, Into into) {
  device.backward += product(groups.offsets[groups.count], weight.columns, weight.rows);
  reference::grouped_linear_backward_input(device.reference(), groups, dy, weight, dx, into);
}
template <class S, class Y, class X, class C>
void grouped_linear_backward_weight(Device& device, Groups groups, MatrixView<Y> dy, MatrixView<X> x,
                                    MatrixStack<C> dweight, Into into) {
  device.backward += product(groups.offsets[groups.count], dweight.columns, dweight.rows);
  reference::grouped_linear_backward_weight<S>(device.reference(), groups, dy, x, dweight, into);
}
template <class C, class S, int K>
void causal_convolution(Device& device, const CausalConvolution<C, S, K>& arguments) {
  device.forward += convolution(arguments.shape, arguments.x.columns, K);
  reference::causal_convolution(device.reference(), arguments);
}
template <class C, class S, int K>
void causal_convolution_backward(Device& device, const CausalConvolutionBackward<C, S, K>& arguments) {
  device.backward += 2 * convolution(arguments.shape, arguments.x.columns, K);
  reference::causal_convolution_backward(device.reference(), arguments);
}
double attention(const AttentionHeads& heads, Shape shape, int width) {
  return 4.0 * width * static_cast<double>(heads.queries * heads.context * shape.tokens());  // as for full windows
}
template <class C, int d>
void causal_attention(Device& device, const CausalAttention<C, d>& arguments) {
  device.forward += attention(arguments.heads, arguments.shape, d);
  reference::causal_attention(device.reference(), arguments);
}
template <class C, int d>
void causal_attention_backward(Device& device, const CausalAttentionBackward<C, d>& arguments) {
  device.backward += 2 * attention(arguments.heads, arguments.shape, d);
  reference::causal_attention_backward(device.reference(), arguments);
}
template <class C, int d>
std::size_t causal_attention_scratch(const Device&, Shape, const AttentionHeads&) {
  return 0;
}
template <class C, class S, int N>
void selective_scan(Device& device, const SelectiveScan<C, S, N>& arguments) {
  device.forward += scan(arguments.shape, arguments.u.columns, N);
  reference::selective_scan(device.reference(), arguments);
}
template <class C, class S, int N>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, N>& arguments) {
  device.backward += 2 * scan(arguments.shape, arguments.u.columns, N);
  reference::selective_scan_backward(device.reference(), arguments);
}
template <class C, class S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  const double flops = product(head.x.rows, head.x.columns, head.weight.rows);
  device.forward += flops;
  if (head.dx.data != nullptr) device.backward += 2 * flops;
  reference::head_cross_entropy(device.reference(), head);
}

}  // namespace counting

namespace {

template <class Definition>
void check_flops() {
  counting::Device device;
  const Shape shape{2, 5};
  test::Bench<Definition, float, counting::Device> bench(device, shape, test::parameters<Definition>());
  const auto data = test::data<Definition, float>(shape);
  const double expected = cost<Definition>.flops_per_token * static_cast<double>(shape.tokens());

  (void)bench.forward(data.inputs, shape);
  CHECK(device.forward == expected);
  CHECK(device.backward == 0);

  // Forward and backward pass, down to the inputs if they have a gradient.
  device.forward = 0;
  std::vector<float> gradients(static_cast<std::size_t>(Definition::parameters));
  if constexpr (test::Data<Definition, float>::takes_tokens) {
    (void)bench.gradient(data, gradients);
  } else {
    const auto outputs = bench.forward(data.inputs, shape);
    std::vector<float> dinputs(data.inputs.size());
    bench.model.backward(bench.workspace, outputs, gradients, dinputs);
  }
  CHECK(device.forward == expected);
  CHECK(device.forward + device.backward ==
        cost<Definition>.training_flops_per_token * static_cast<double>(shape.tokens()));
}

}  // namespace

TEST_CASE("The counted cost is that of an instrumented run", "[model][cost]") {
  check_flops<test::MambaNet>();
  check_flops<test::MixtureNet>();
  check_flops<test::ManyWaysNet>();
  check_flops<test::SeriesNet>();
  check_flops<test::AttentionNet>();
}
