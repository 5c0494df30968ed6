// A Mamba layer with experts in its projections relative to the dense layer with as many active parameters, called as a
// model would call it; and the parts of the layer with experts that the dense one does not have.
//
//   nvcc -std=c++20 -arch=native -O2 -I include -I tests -I benchmarks mamba_experts.cu -o mamba_experts -lcublas
#include <cstdio>
#include <vector>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda.cuh"
#include "moe_mamba/language/mamba.hpp"

using namespace moe_mamba;
using benchmarks::Filled;
using benchmarks::milliseconds;

namespace {

constexpr int width = 768;

/// A single layer whose activations and parameters are of type S.
template <class Layer, class S>
class Alone {
 public:
  Alone(cuda::Device& device, Shape shape)
      : device_(device),
        shape_(shape),
        parameters_(parameters_of<Layer>),
        gradients_(parameters_of<Layer>),
        x_(shape.tokens() * width),
        dy_(shape.tokens() * width),
        y_(shape.tokens() * width),
        dx_(shape.tokens() * width),
        report_(std::max<Index>(Layer::report_size, 1)),
        tape_(static_cast<Index>(tape_bytes<Layer, S>(device, shape))),
        scratch_(static_cast<Index>(scratch_bytes<Layer, S>(device, shape, true))) {
    // Uniform in ± 0.05: the tests' numbers are in ± 1.
    const auto values = test::uniform<float>(parameters_of<Layer>, 7, -0.05, 0.05);
    std::vector<S> stored(values.begin(), values.end());
    cuda::check(cudaMemcpy(parameters_.data(), stored.data(), stored.size() * sizeof(S), cudaMemcpyHostToDevice),
                "cudaMemcpy");
  }

  void forward() {
    Layer::forward(Forward<cuda::Device, S, S>{.device = device_,
                                               .shape = shape_,
                                               .training = true,
                                               .state = {},
                                               .report = report_.data(),
                                               .scratch = scratch()},
                   weights(), saved(), inputs(x_), rows(y_));
  }
  void backward() {
    Layer::backward(Backward<cuda::Device, S, S>{.device = device_,
                                                 .shape = shape_,
                                                 .auxiliary_weight = 1,
                                                 .dstate = {},
                                                 .report = report_.data(),
                                                 .scratch = scratch()},
                    weights(), bind_weights<Layer>(gradients_.data()), saved(), inputs(x_), inputs(dy_), rows(dx_));
  }

  auto saved() const {
    Arena arena(reinterpret_cast<std::byte*>(tape_.data()));
    return typename Layer::template Saved<S>(arena, device_, shape_);
  }

 private:
  auto weights() const { return bind_weights<Layer>(static_cast<const S*>(parameters_.data())); }
  Arena scratch() const { return Arena(reinterpret_cast<std::byte*>(scratch_.data())); }
  MatrixView<S> rows(const Filled<S>& buffer) const { return matrix(buffer.data(), shape_.tokens(), width); }
  MatrixView<const S> inputs(const Filled<S>& buffer) const { return rows(buffer); }

  cuda::Device& device_;
  Shape shape_;
  Filled<S> parameters_;
  Filled<float> gradients_;
  Filled<S> x_, dy_, y_, dx_;
  Filled<double> report_;
  Filled<unsigned char> tape_, scratch_;
};

template <class S, class Experts>
void measure(cuda::Device& device, const char* type, const char* name, Shape shape) {
  Alone<typename Experts::template Layer<width>, S> experts(device, shape);
  Alone<Mamba<>::Layer<width>, S> dense(device, shape);
  const auto time = [&](const auto& call) { return milliseconds(device, 9, call); };
  const double forward[] = {time([&] { experts.forward(); }), time([&] { dense.forward(); })};
  const double backward[] = {time([&] { experts.backward(); }), time([&] { dense.backward(); })};
  std::printf("%-8s %-23s %6td | forward %6.3f ms, %.2f x dense | backward %6.3f ms, %.2f x | both %.2f x\n", type,
              name, shape.tokens(), forward[0], forward[0] / forward[1], backward[0], backward[0] / backward[1],
              (forward[0] + backward[0]) / (forward[1] + backward[1]));
}

/// A router, as a layer that leaves y alone.
struct RouterLayer : LayerOf<Routing<width, RoutingOptions{.experts = 8}>> {
  using Router = Routing<width, RoutingOptions{.experts = 8}>;
  template <class Bind>
  using Weights = typename Router::template Weights<Bind>;
  template <class C>
  using Saved = typename Router::template Saved<C>;
  template <class C>
  using ForwardScratch = typename Router::template ForwardScratch<C>;
  template <class C>
  using BackwardScratch = typename Router::template BackwardScratch<C>;

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C>) {
    Router::forward(run, w, saved, ForwardScratch<C>(run.scratch, run.device, run.shape), x);
  }
};

/// The parts of a projection from the layer's width to `out` columns.
template <class S>
void measure_parts(cuda::Device& device, const char* type, Shape shape, Index out) {
  const Index tokens = shape.tokens();
  constexpr Index experts = 8;
  Alone<RouterLayer, S> router(device, shape);
  Filled<S> x(tokens * width), ordered_x(tokens * width), ordered_y(tokens * out), y(tokens * out);
  Filled<S> weight(experts * out * width);
  const auto rows = matrix(x.data(), tokens, Index{width}), ordered = matrix(ordered_x.data(), tokens, Index{width});
  const auto results = matrix(ordered_y.data(), tokens, out), to = matrix(y.data(), tokens, out);
  const MatrixStack<const S> stack{weight.data(), out, width};
  const auto line = [&](const char* name, const auto& call) {
    std::printf("%-8s %6td tokens, %d to %td: %-22s %7.3f ms\n", type, tokens, width, out, name,
                milliseconds(device, 9, call));
  };
  line("router", [&] { router.forward(); });
  const auto routed = router.saved();
  const Groups groups = routed.groups();
  line("gather", [&] { gather_rows(device, groups, rows, routed.source, ordered); });
  line("product in order", [&] { grouped_linear(device, groups, ordered, stack, results); });
  line("combine", [&] { combine_rows(device, results, routed.slots, 1, nullptr, to, Into::assign); });
  const ScatteredRows<S> scattered{to, routed.source, results};
  line("scattered product", [&] { grouped_linear(device, groups, ordered, stack, scattered); });
  line("dense product", [&] { linear(device, rows, stack[0], to); });
}

template <class S>
void measure_all(cuda::Device& device, const char* type) {
  using InAndOut = Mamba<InputExperts<8>, OutputExperts<8>>;
  using All = Mamba<InputExperts<8>, GateExperts<8>, OutputExperts<8>>;
  for (const Shape shape : {Shape{2, 2048}, Shape{32, 2048}}) {
    measure<S, InAndOut>(device, type, "input and output", shape);
    measure<S, All>(device, type, "input, gate and output", shape);
  }
  for (const Index out : {width, 4 * width}) measure_parts<S>(device, type, {32, 2048}, out);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cuda::Device device;
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("%s, width %d, 8 experts, top-1\n", properties.name, width);
  measure_all<bfloat16>(device, "bfloat16");
  measure_all<float>(device, "float");
}
