#include <functional>

#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/cpu/linear.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

/// A linear layer of a model, for `rows` tokens.
template <class S>
class Linear {
 public:
  Linear(Index rows, Index inputs, Index outputs)
      : rows_(rows),
        inputs_(inputs),
        outputs_(outputs),
        x_(rows * inputs, -1, 1, 1),
        y_(rows * outputs, -1, 1, 2),
        weight_(outputs * inputs, -1, 1, 3),
        dweight_(outputs * inputs) {}

  double operations() const {
    return 2.0 * static_cast<double>(rows_) * static_cast<double>(inputs_) * static_cast<double>(outputs_);
  }
  void forward(cpu::Device& device) const { linear(device, x(), weight(), y()); }
  void backward_input(cpu::Device& device) const { linear_backward_input(device, y(), weight(), x(), Into::assign); }
  void backward_weight(cpu::Device& device) const {
    linear_backward_weight<S>(device, y(), x(), matrix(dweight_.data(), outputs_, inputs_));
  }

 private:
  MatrixView<float> x() const { return matrix(x_.data(), rows_, inputs_); }
  MatrixView<float> y() const { return matrix(y_.data(), rows_, outputs_); }
  MatrixView<const S> weight() const { return matrix<const S>(weight_.data(), outputs_, inputs_); }

  Index rows_, inputs_, outputs_;
  Buffer<float> x_, y_;
  Buffer<S> weight_;
  Buffer<float> dweight_;
};

void measure(Report& report, const std::string& name, double operations,
             const std::function<void(cpu::Device&)>& product) {
  for (const int threads : report.settings().threads) {
    cpu::Device device(Threads{threads});
    const auto samples = interleave(report.settings(), {[&] { product(device); }, [&] { multiply_add(device); }});
    report.add({name,
                threads,
                samples[0],
                1e-9 * operations / samples[0].median(),
                "GFLOP/s",
                {of_peak(device, operations, samples[0], samples[1])}});
  }
}

std::string sizes(Index rows, Index inputs, Index outputs) {
  return std::to_string(rows) + " x " + std::to_string(inputs) + " -> " + std::to_string(outputs);
}

}  // namespace

void gemm(Report& report) {
  report.begin_group("gemm",
                     "matrix products at the sizes of mamba-130m, with float weights, and for an expert's tokens");
  const Index tokens = report.settings().quick ? 128 : 512;
  const struct {
    const char* name;
    Index rows, inputs, outputs;
  } layers[] = {{"in_proj", tokens, 768, 3072},
                {"x_proj", tokens, 1536, 80},
                {"dt_proj", tokens, 48, 1536},
                {"out_proj", tokens, 1536, 768},
                {"head", tokens / 4, 768, 50280}};
  for (const auto& layer : layers) {
    const Linear<float> linear(layer.rows, layer.inputs, layer.outputs);
    const std::string name = std::string(layer.name) + " " + sizes(layer.rows, layer.inputs, layer.outputs);
    const auto call = [&](auto member) { return [&linear, member](cpu::Device& device) { (linear.*member)(device); }; };
    measure(report, name, linear.operations(), call(&Linear<float>::forward));
    measure(report, std::string(layer.name) + " backward, input", linear.operations(),
            call(&Linear<float>::backward_input));
    measure(report, std::string(layer.name) + " backward, weight", linear.operations(),
            call(&Linear<float>::backward_weight));
  }
  const auto forward = [&]<class S>(S, const std::string& name, Index rows, Index inputs, Index outputs) {
    const Linear<S> linear(rows, inputs, outputs);
    measure(report, name + sizes(rows, inputs, outputs), linear.operations(),
            [&](cpu::Device& device) { linear.forward(device); });
  };
  for (const Index rows : {Index{4}, Index{16}, Index{64}}) {
    forward(float(), "", rows, 768, 3072);
    forward(float(), "", rows, 3072, 768);
  }
  forward(bfloat16(), "bfloat16 ", tokens, 768, 3072);
  forward(bfloat16(), "bfloat16 ", 16, 768, 3072);
}

}  // namespace benchmarks
