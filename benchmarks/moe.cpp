#include "moe_mamba/language/moe.hpp"

#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/cpu/activation.hpp"
#include "moe_mamba/cpu/causal_convolution.hpp"
#include "moe_mamba/cpu/dispatch.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/cpu/norm.hpp"
#include "moe_mamba/cpu/router.hpp"
#include "moe_mamba/cpu/selective_scan_backward.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

constexpr int width = 512;

/// A single layer, called as a model would call it.
template <class Layer>
class Alone {
 public:
  Alone(cpu::Device& device, Shape shape)
      : device_(device),
        shape_(shape),
        parameters_(parameters_of<Layer>, -0.04, 0.04, 1),
        gradients_(parameters_of<Layer>),
        x_(shape.tokens() * width, -1, 1, 2),
        dy_(shape.tokens() * width, -1, 1, 3),
        y_(shape.tokens() * width),
        dx_(shape.tokens() * width),
        report_(std::max<Index>(Layer::report_size, 1)),
        tape_(static_cast<Index>(tape_bytes<Layer, float>(device, shape))),
        scratch_(static_cast<Index>(scratch_bytes<Layer, float>(device, shape, true))) {}

  double operations() const { return Layer::flops_per_token * static_cast<double>(shape_.tokens()); }
  std::span<const std::byte> parameters() const { return parameters_.bytes(); }

  void forward() {
    Layer::forward(Forward<cpu::Device, float, float>{.device = device_,
                                                      .shape = shape_,
                                                      .training = true,
                                                      .state = {},
                                                      .report = report_.data(),
                                                      .scratch = Arena(scratch_.data())},
                   weights(), saved(), inputs(x_), rows(y_));
  }

  void backward() {
    Layer::backward(Backward<cpu::Device, float, float>{.device = device_,
                                                        .shape = shape_,
                                                        .auxiliary_weight = 1,
                                                        .dstate = {},
                                                        .report = report_.data(),
                                                        .scratch = Arena(scratch_.data())},
                    weights(), bind_weights<Layer>(gradients_.data()), saved(), inputs(x_), inputs(dy_), rows(dx_));
  }

 private:
  auto weights() const { return bind_weights<Layer>(static_cast<const float*>(parameters_.data())); }
  auto saved() const {
    Arena arena(tape_.data());
    return typename Layer::template Saved<float>(arena, device_, shape_);
  }
  MatrixView<float> rows(const Buffer<float>& buffer) const { return matrix(buffer.data(), shape_.tokens(), width); }

  MatrixView<const float> inputs(const Buffer<float>& buffer) const { return rows(buffer); }

  cpu::Device& device_;
  Shape shape_;
  Buffer<float> parameters_, gradients_, x_, dy_, y_, dx_;
  Buffer<double> report_;
  Buffer<std::byte> tape_, scratch_;
};

/// A mixture, compared to a dense layer with equally many operations.
template <class Mixture, class Dense>
void measure(Report& report, const std::string& name, Index tokens) {
  for (const int threads : report.settings().threads) {
    cpu::Device device(Threads{threads});
    Alone<typename Mixture::template Layer<width>> mixture(device, {1, tokens});
    Alone<typename Dense::template Layer<width>> dense(device, {1, tokens});
    const auto add = [&](const std::string& pass, double operations, const std::vector<Samples>& samples) {
      report.add({name + ", " + std::to_string(tokens) + " tokens, " + pass,
                  threads,
                  samples[0],
                  1e-9 * operations / samples[0].median(),
                  "GFLOP/s",
                  {of_peak(device, operations, samples[0], samples[2]),
                   {"the dense layer's time", time_ratio(samples[0], samples[1]), false, 0},
                   {"memory read of all experts", time_ratio(samples[0], samples[3]), false, 0}}});
    };
    const auto peak = [&] { multiply_add(device); };
    const auto read = [&] { plain_read(device, mixture.parameters()); };
    add("forward", mixture.operations(),
        interleave(report.settings(), {[&] { mixture.forward(); }, [&] { dense.forward(); }, peak, read}));
    add("backward", 2 * mixture.operations(),
        interleave(report.settings(), {[&] { mixture.backward(); }, [&] { dense.backward(); }, peak, read}));
  }
}

}  // namespace

void moe(Report& report) {
  report.begin_group("moe", "mixtures of experts of width 512 and hidden width 1536, compared to dense layers");
  for (const Index tokens : {Index{512}, Index{2048}}) {
    if (report.settings().quick && tokens > 512) continue;
    measure<Moe<Experts<32>, TopK<1>, Hidden<1536>>, Mlp<Hidden<1536>>>(report, "1 of 32", tokens);
    measure<Moe<Experts<8>, TopK<2>, Hidden<1536>>, Mlp<Hidden<3072>>>(report, "2 of 8", tokens);
  }
}

void mamba_experts(Report& report) {
  report.begin_group(
      "mamba-experts",
      "Mamba layers of width 512 with 8 experts in projections, compared to the dense layer with as many "
      "active parameters");
  using InAndOut = Mamba<InputExperts<8>, OutputExperts<8>>;
  using All = Mamba<InputExperts<8>, GateExperts<8>, OutputExperts<8>>;
  for (const Index tokens : {Index{512}, Index{2048}}) {
    if (report.settings().quick && tokens > 512) continue;
    measure<InAndOut, Mamba<>>(report, "input and output", tokens);
    measure<All, Mamba<>>(report, "input, gate and output", tokens);
  }
}

}  // namespace benchmarks
