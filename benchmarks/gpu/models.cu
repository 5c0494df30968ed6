#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda.cuh"

/// Whole models on a CUDA device: training of the paper's MoE-Mamba, decoding with a Mamba of 2.8 billion parameters.
namespace {

using namespace moe_mamba;

/// MoE-Mamba of 25 million active parameters (Pióro et al. 2024, table 1).
using MoeMamba25M =
    LanguageModel<Vocabulary<50257>, Width<512>, Repeat<8, Mamba<State<16>>, Moe<Experts<42>, TopK<1>, Hidden<1536>>>>;

/// The shape of state-spaces/mamba-2.8b.
using Mamba2800M = LanguageModel<Vocabulary<50280>, Width<2560>, Repeat<64, Mamba<State<16>>>>;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::vector<Token> random_tokens(Index count, Index vocabulary) {
  Random random(Seed{1});
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (auto& token : tokens) token = static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

/// Steps of a trainer, as a user takes them: from the host's tokens to the loss on the host.
template <class Definition, class S>
void measure_training(const char* name, Shape shape, double peak, FloatProducts products) {
  Model<Definition, S, Cuda> model(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.largest = shape, .cuda = {.products = products}});
  const auto tokens = random_tokens(shape.tokens() + 1, Definition::vocabulary);
  const std::span<const Token> all(tokens);
  const TokenBatch batch{all.first(all.size() - 1), all.subspan(1), shape};
  std::vector<double> times;
  StepReport report;
  for (int step = 0; step < 13; ++step) {
    const double begin = seconds();
    report = trainer.step(batch);
    if (step >= 3) times.push_back(seconds() - begin);
  }
  const double time = median(times), tokens_per_second = static_cast<double>(shape.tokens()) / time;
  const double flops = cost<Definition, S>.training_flops_per_token * tokens_per_second;
  std::printf("%-44s %3td x %5td %9.2f ms a step %10.0f tokens/s %7.1f TFLOP/s", name, shape.batch, shape.length,
              1e3 * time, tokens_per_second, 1e-12 * flops);
  if (peak > 0) std::printf(", %.0f %% of 790", 100 * flops / peak);
  std::printf(" (loss %.2f)\n", report.loss);
  std::fflush(stdout);
}

/// Steps of `batch` sequences from a graph, at the device's rate.
template <class Definition, class S>
void measure_decoding(const char* name, Index batch, double copy_rate) {
  using C = compute_t<S>;
  cuda::Device device;
  const Model<Definition, S, Cuda> model(Seed{1});
  Workspace<Definition, S, Cuda> workspace(device, {batch, 1});
  States<Definition, S, cuda::Memory> states(batch);
  Array<Token, cuda::Memory> inputs(static_cast<std::size_t>(batch));
  inputs.write(random_tokens(batch, Definition::vocabulary));
  Array<C, cuda::Memory> outputs(static_cast<std::size_t>(batch * Definition::output_width));
  cuda::Recording recording;
  const auto step = [&] {
    recording.run(device, [&] { model.step(workspace, states, std::as_const(inputs).span(), outputs.span()); });
  };
  for (int i = 0; i < 3; ++i) step();
  const double time = benchmarks::milliseconds(device, 15, step);
  constexpr Cost facts = cost<Definition, S>;
  const double bytes =
      static_cast<double>(facts.active_parameters) * sizeof(S) + 2.0 * static_cast<double>(batch * facts.state_bytes);
  std::printf("%-44s batch %3td %9.3f ms a step %10.0f tokens/s %6.0f GB/s of weights and states, %.0f %% of a copy\n",
              name, batch, time, 1e3 * static_cast<double>(batch) / time, 1e-6 * bytes / time,
              100 * bytes / time / copy_rate);
  std::fflush(stdout);
}

double copy_rate() {
  cuda::Device device;
  const std::size_t bytes = std::size_t{1} << 30;
  const cuda::Memory from(bytes), to(bytes);
  return 2.0 * static_cast<double>(bytes) / benchmarks::milliseconds(device, 9, [&] {
           cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, device.stream()),
                       "copy");
         });
}

}  // namespace

int main() {
  const double rate = copy_rate();
  std::printf("copy %.0f GB/s\n", 1e-6 * rate);
  measure_training<MoeMamba25M, bfloat16>("train MoE-Mamba 25M, bfloat16", {16, 1024}, 790e12, FloatProducts::exact);
  measure_training<MoeMamba25M, bfloat16>("train MoE-Mamba 25M, bfloat16", {64, 1024}, 790e12, FloatProducts::exact);
  measure_training<MoeMamba25M, float>("train MoE-Mamba 25M, float", {16, 1024}, 0, FloatProducts::exact);
  measure_training<MoeMamba25M, float>("train MoE-Mamba 25M, float, TF32", {16, 1024}, 0, FloatProducts::tf32);
  for (const Index batch : {1, 64}) measure_decoding<Mamba2800M, bfloat16>("decode Mamba 2.8B, bfloat16", batch, rate);
  for (const Index batch : {1, 64})
    measure_decoding<MoeMamba25M, bfloat16>("decode MoE-Mamba 25M, bfloat16", batch, rate);
}
