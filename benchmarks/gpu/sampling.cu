// Drawing the next token from logits: the time of one draw inside a graph of many, as in a decoder, next to that of one
// read of the logits.
#include <cstdio>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda/sampling/sampling.cuh"

using namespace moe_mamba;

namespace {

constexpr int draws = 50;

/// Microseconds per draw in a graph of `draws` draws.
double microseconds(cuda::Device& device, const SampleTokens<float>& tokens) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  for (int draw = 0; draw < draws; ++draw) sample(device, tokens);
  cuda::check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  const double time = benchmarks::milliseconds(
      device, 7, [&] { cuda::check(cudaGraphLaunch(executable, device.stream()), "cudaGraphLaunch"); });
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return time * 1e3 / draws;
}

void measure(cuda::Device& device, Index rows, Index vocabulary, double spread) {
  const auto host = test::uniform<float>(rows * vocabulary, 1, -spread, spread);
  const benchmarks::Filled<float> logits(rows * vocabulary);
  cuda::check(cudaMemcpy(logits.data(), host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice),
              "cudaMemcpy");
  const benchmarks::Filled<Token> tokens(rows);
  const benchmarks::Filled<std::uint64_t> positions(rows);
  const benchmarks::Filled<std::uint32_t> status(rows);
  const cuda::Memory scratch(cuda::sample_scratch<float>(device, rows, vocabulary));
  const std::pair<const char*, Sampling> ways[] = {
      {"greedy", Greedy{}},
      {"temperature", Temperature{0.8f}},
      {"top-k 50", TopKSampling{50}},
      {"top-p 0.9", TopP{0.9f}},
      {"top-k 50, top-p 0.9", Sampling{.temperature = 1, .top_k = 50, .top_p = 0.9f}},
  };
  std::printf("%td x %td logits within +-%g (%.1f us to read at 3 TB/s)\n", rows, vocabulary, spread,
              double(rows) * double(vocabulary) * 4 / 3e6);
  for (const auto& [name, sampling] : ways) {
    const double time =
        microseconds(device, {sampling, matrix<const float>(logits.data(), rows, vocabulary), Seed{1}, 0,
                              positions.data(), tokens.data(), status.data(), Arena(scratch.data())});
    std::printf("  %-24s %8.1f us\n", name, time);
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
  measure(device, 1, 50280, 1);
  measure(device, 1, 50280, 12);
  measure(device, 64, 50280, 12);
  measure(device, 1, 1 << 20, 12);
}
