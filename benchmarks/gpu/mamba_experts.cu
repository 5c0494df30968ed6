// A Mamba layer with experts in its projections against the dense layer with as many active parameters, with everything
// that a model would pass to it.
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

 private:
  auto weights() const { return bind_weights<Layer>(static_cast<const S*>(parameters_.data())); }
  auto saved() const {
    Arena arena(reinterpret_cast<std::byte*>(tape_.data()));
    return typename Layer::template Saved<S>(arena, device_, shape_);
  }
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

template <class S>
void measure_all(cuda::Device& device, const char* type) {
  using InAndOut = Mamba<InputExperts<8>, OutputExperts<8>>;
  using All = Mamba<InputExperts<8>, GateExperts<8>, OutputExperts<8>>;
  for (const Shape shape : {Shape{2, 2048}, Shape{32, 2048}}) {
    measure<S, InAndOut>(device, type, "input and output", shape);
    measure<S, All>(device, type, "input, gate and output", shape);
  }
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
