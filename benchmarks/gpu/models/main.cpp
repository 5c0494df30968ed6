#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string_view>
#include <vector>

#include "gpu/models/nets.hpp"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/recording.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/train/trainer.hpp"

/// Whole models on a CUDA device: training of the paper's MoE-Mamba, decoding with it and with a Mamba of 2.8 billion
/// parameters. Medians, with random tokens. An argument selects those whose names begin with it: "train", "decode
/// large".
namespace {

using namespace moe_mamba;
using namespace benchmarks;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Median seconds of work, including a final synchronisation of the device.
template <class Work>
double time(const cuda::Device& device, int warm, int times, const Work& work) {
  std::vector<double> each;
  for (int i = 0; i < warm + times; ++i) {
    const double begin = seconds();
    work();
    device.synchronize();
    if (i >= warm) each.push_back(seconds() - begin);
  }
  return median(each);
}

std::vector<Token> random_tokens(Index count, Index vocabulary) {
  Random random(Seed{1});
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (auto& token : tokens) token = static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

/// A model whose matrices are filled quickly; billions of normal draws would take minutes.
template <class Definition, class S>
Model<Definition, S, Cuda> random_model() {
  std::vector<S> values(static_cast<std::size_t>(Definition::parameters));
  std::uint64_t state = 1;
  Definition::visit_parameters([&](const Parameter& parameter) {
    S* const to = values.data() + parameter.offset;
    if (parameter.kind != ParameterKind::matrix || parameter.size() < 1 << 20) {
      initialise(parameter, Seed{1}, 0, 1, to);
      return;
    }
    for (Index i = 0; i < parameter.size(); ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      to[i] = S((static_cast<float>(state >> 40) * 0x1p-24f - 0.5f) * 0.06f);
    }
  });
  Model<Definition, S, Cuda> model(Uninitialised{});
  model.write(values);
  return model;
}

/// Training steps as a user runs them: from tokens on the host to the loss on the host.
template <class Definition, class S>
void measure_training(const char* name, Shape shape, FloatProducts products) {
  auto model = random_model<Definition, S>();
  Cuda device({.products = products});
  Trainer trainer(model, device, AdamW{.learning_rate = 1e-5}, Constant{}, TrainerOptions{.largest = shape});
  const auto tokens = random_tokens(shape.tokens() + 1, Definition::vocabulary);
  const std::span<const Token> all(tokens);
  const TokenBatch batch{all.first(all.size() - 1), all.subspan(1), shape};
  StepReport report;
  const double step = time(trainer.device(), 3, 15, [&] { report = trainer.step(batch); });
  const double rate = static_cast<double>(shape.tokens()) / step;
  std::printf("%-40s %3td x %5td %9.2f ms a step %10.0f tokens/s %7.1f TFLOP/s, %4.1f %% of 790 (loss %.2f)\n", name,
              shape.batch, shape.length, 1e3 * step, rate, 1e-12 * cost<Definition, S>.training_flops_per_token * rate,
              100e-12 / 790 * cost<Definition, S>.training_flops_per_token * rate, report.loss);
  std::fflush(stdout);
}

/// Steps of `batch` sequences, replayed from a graph.
template <class Definition, class S>
void measure_decoding(const char* name, const Model<Definition, S, Cuda>& model, Index batch, double copy_rate) {
  using C = compute_t<S>;
  cuda::Device device;
  Workspace<Definition, S, Cuda> workspace(device, {batch, 1});
  States<Definition, S, cuda::Memory> states(batch);
  Array<Token, cuda::Memory> inputs(static_cast<std::size_t>(batch));
  inputs.write(random_tokens(batch, Definition::vocabulary));
  Array<C, cuda::Memory> outputs(static_cast<std::size_t>(batch * Definition::output_width));
  cuda::Recording recording;
  constexpr int steps = 10;
  const double step = time(device, 3, 9,
                           [&] {
                             for (int i = 0; i < steps; ++i) {
                               recording.run(device, [&] {
                                 model.step(workspace, states, std::as_const(inputs).span(), outputs.span());
                               });
                             }
                           }) /
                      steps;
  constexpr Cost facts = cost<Definition, S>;
  const double bytes =
      static_cast<double>(facts.active_parameters) * sizeof(S) + 2.0 * static_cast<double>(batch * facts.state_bytes);
  std::printf(
      "%-40s batch %3td %9.3f ms a step %10.0f tokens/s, %5.0f GB/s of one token's weights and all states, "
      "%.0f %% of a copy\n",
      name, batch, 1e3 * step, static_cast<double>(batch) / step, 1e-9 * bytes / step, 100 * bytes / step / copy_rate);
  std::fflush(stdout);
}

double copy_rate() {
  cuda::Device device;
  const std::size_t bytes = std::size_t{1} << 30;
  const cuda::Memory from(bytes), to(bytes);
  const double seconds = time(device, 2, 9, [&] {
    cuda::check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, device.stream()), "copy");
  });
  return 2.0 * static_cast<double>(bytes) / seconds;
}

}  // namespace

int main(int count, char** arguments) {
  const double rate = copy_rate();
  std::printf("copy %.0f GB/s\n", 1e-9 * rate);
  const auto wanted = [&](std::string_view name) { return count < 2 || name.starts_with(arguments[1]); };
  if (wanted("train bfloat16")) {
    for (const Index batch : {8, 16, 64}) {
      measure_training<MoeMamba25M, bfloat16>("train MoE-Mamba 25M, bfloat16", {batch, 1024}, FloatProducts::exact);
    }
  }
  if (wanted("train float")) {
    measure_training<MoeMamba25M, float>("train MoE-Mamba 25M, float", {16, 1024}, FloatProducts::exact);
    measure_training<MoeMamba25M, float>("train MoE-Mamba 25M, float as TF32", {16, 1024}, FloatProducts::tf32);
  }
  if (wanted("decode mixture")) {
    const auto mixture = random_model<MoeMamba25M, bfloat16>();
    for (const Index batch : {1, 64}) measure_decoding("decode MoE-Mamba 25M, bfloat16", mixture, batch, rate);
  }
  if (wanted("decode large")) {
    const auto large = random_model<Mamba2800M, bfloat16>();
    for (const Index batch : {1, 64}) measure_decoding("decode Mamba 2.8B, bfloat16", large, batch, rate);
  }
}
