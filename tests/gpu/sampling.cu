// Drawing tokens: as the reference, token for token. Because sums are not exact, a different token could be correct
// within 1e-12 of the boundary between two tokens; none of these draws is that close.
#include <string>

#include "gpu/operations.cuh"
#include "moe_mamba/cuda/sampling/sampling.cuh"
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/reference/sampling.hpp"

using namespace moe_mamba;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// Logits of many kinds: of large and small range, with ties, with zeros of both signs, with excluded tokens, invalid
/// ones.
template <class C>
std::vector<C> draw_logits(Index count, int kind) {
  auto logits = test::uniform<C>(count, 100 + std::uint64_t(kind), -4, 4);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (kind == 1) logits[i] = std::round(logits[i]);                   // nine values, -0 among them
    if (kind == 2) logits[i] = logits[i] * C(20);                       // a few tokens have all the probability
    if (kind == 3 && i % 3 != 1) logits[i] = C(-infinity);              // two thirds excluded
    if (kind == 4) logits[i] = C(1.25);                                 // no difference at all
    if (kind == 5) logits[i] = logits[i] * C(1e30) + C(i % 7);          // differences lost in rounding
    if (kind == 6) logits[i] = C(i % 2 == 0 ? 3e38 : -3e38);            // differences beyond float
    if (kind == 7 && i != logits.size() / 2) logits[i] = C(-infinity);  // a single token remains
    if (kind == 8 && i == logits.size() / 2) logits[i] = C(NAN);
    if (kind == 9 && i == logits.size() / 2) logits[i] = C(infinity);
  }
  return logits;
}

template <class C>
void check_sampling(test::Report& report, cuda::Device& owner, Index vocabulary, const Sampling& sampling, int kind) {
  const Index rows = 3, stride = vocabulary + 1;
  const cuda::Memory device_scratch(cuda::sample_scratch(owner, rows, vocabulary));
  const HostMemory scratch(reference::sample_scratch<C>(reference::Device{}, rows, vocabulary));
  const std::vector<std::uint64_t> positions = {0, 0xffffffffu, std::uint64_t(vocabulary + kind)};
  report.check("sample " + std::to_string(vocabulary) + ", kind " + std::to_string(kind) + ", temperature " +
                   std::to_string(sampling.temperature) + ", k " + std::to_string(sampling.top_k) + ", p " +
                   std::to_string(sampling.top_p),
               0.5,
               std::make_tuple(draw_logits<C>(rows * stride, kind), positions, std::vector<Token>(rows, -7),
                               std::vector<std::uint32_t>(rows, 8)),
               [&](auto& device, const auto* logits, std::uint64_t* at, Token* tokens, std::uint32_t* status) {
                 using Compute = std::remove_cvref_t<decltype(*logits)>;
                 constexpr bool plain = std::is_same_v<std::remove_cvref_t<decltype(device)>, reference::Device>;
                 sample(device,
                        SampleTokens<Compute>{.sampling = sampling,
                                              .logits = {logits, rows, vocabulary, stride},
                                              .seed = Seed{11},
                                              .stream = 5,
                                              .positions = at,
                                              .tokens = tokens,
                                              .status = status,
                                              .scratch = Arena(plain ? scratch.data() : device_scratch.data())});
               });
}

template <class C>
void check_samplings(test::Report& report, cuda::Device& owner) {
  for (const Index vocabulary : {1, 31, 257, 1025, 5003}) {
    for (int kind = 0; kind < 10; ++kind) {
      for (const Index k : {Index{0}, Index{17}, vocabulary / 2, vocabulary - 1}) {
        for (const float p : {1e-6f, 0.9f, 1.0f}) {
          for (const float temperature : {0.7f, 0.0f, std::numeric_limits<float>::denorm_min(), 1e30f}) {
            if (temperature != 0.7f && (kind > 1 || vocabulary > 1025)) continue;  // a few are enough
            check_sampling<C>(report, owner, vocabulary, Sampling{temperature, k, p}, kind);
          }
        }
      }
    }
  }
}

/// Replays of a captured graph draw successive tokens of a sampler.
void check_graph(test::Report& report, cuda::Device& device) {
  const Index vocabulary = 50280;
  const int draws = 40;
  const auto host = test::uniform<float>(vocabulary, 3, -8, 4);
  const test::Guarded<float> logits(host);
  const cuda::Memory scratch(cuda::sample_scratch<float>(device, 1, vocabulary));
  for (const Sampling sampling : {Sampling(Greedy{}), Sampling{}, Sampling(TopP{0.9f}), Sampling(TopKSampling{40}),
                                  Sampling{.temperature = 0.8f, .top_k = 1000, .top_p = 0.7f}}) {
    const test::Guarded<std::uint64_t> position(std::vector<std::uint64_t>(1));
    const test::Guarded<Token> token(std::vector<Token>(1, -7));
    const test::Guarded<std::uint32_t> status(std::vector<std::uint32_t>(1));
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    sample(device, SampleTokens<float>{sampling, test::fixed(logits.data(), 1, vocabulary), Seed{4}, 9, position.data(),
                                       token.data(), status.data(), Arena(scratch.data())});
    cuda::check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
    cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
    Sampler sampler(sampling, Seed{4}, vocabulary, 9);
    int differences = 0;
    bool intact = true;
    for (int draw = 0; draw < draws; ++draw) {
      cuda::check(cudaGraphLaunch(executable, device.stream()), "cudaGraphLaunch");
      device.synchronize();
      differences += token.read(intact)[0] != sampler(host) ? 1 : 0;
    }
    report.expect("a graph draws what a sampler draws", differences == 0);
    report.expect("its position moves on", position.read(intact)[0] == sampler.random().position());
    report.expect("nothing else is written", intact && status.read(intact)[0] == 0);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
}

/// The largest vocabulary with equal logits: the token's rank among the kept ones is proportional to the random number.
void check_largest(test::Report& report, cuda::Device& device) {
  const Index vocabulary = most_sampled_tokens;
  const cuda::Memory logits(std::size_t(vocabulary) * sizeof(float));
  const cuda::Memory scratch(cuda::sample_scratch<float>(device, 1, vocabulary));
  cuda::check(cudaMemset(logits.data(), 0, logits.size()), "cudaMemset");
  cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  for (const auto& [k, p] : {std::pair{Index{0}, 1.0f}, std::pair{Index{0}, 0.5f}, std::pair{vocabulary - 3, 1.0f},
                             std::pair{vocabulary / 4 + 1, 0.75f}}) {
    const double kept = std::ceil(double(k > 0 ? k : vocabulary) * double(p));
    const test::Guarded<std::uint64_t> position(std::vector<std::uint64_t>{3});
    const test::Guarded<Token> token(std::vector<Token>(1, -7));
    const test::Guarded<std::uint32_t> status(std::vector<std::uint32_t>(1));
    sample(device, SampleTokens<float>{
                       Sampling{1, k, p}, test::fixed(reinterpret_cast<const float*>(logits.data()), 1, vocabulary),
                       Seed{4}, 0, position.data(), token.data(), status.data(), Arena(scratch.data())});
    device.synchronize();
    bool intact = true;
    Random random = sampling_random(Seed{4}, 0, 3);
    const Token drawn = token.read(intact)[0];
    report.expect("the largest vocabulary", drawn == Token(random.uniform() * kept) && intact);
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    cuda::Device device;
    report.group("sampling float");
    check_samplings<float>(report, device);
    report.group("sampling double");
    for (const Index vocabulary : {1, 1025, 5003}) {
      for (int kind = 0; kind < 10; ++kind) {
        for (const Sampling sampling : {Sampling{}, Sampling(TopP{0.9f}), Sampling(TopKSampling{17}),
                                        Sampling{.temperature = 0.7f, .top_k = vocabulary / 2, .top_p = 0.5f}}) {
          check_sampling<double>(report, device, vocabulary, sampling, kind);
        }
      }
    }
    report.group("sampling, pieces of several chunks");
    for (const int kind : {0, 1, 4}) {
      check_sampling<float>(report, device, 700'003, Sampling{1, 300'000, 0.9f}, kind);
      check_sampling<float>(report, device, 700'003, Sampling{2, 0, 0.6f}, kind);
    }
    report.group("sampling from a graph");
    check_graph(report, device);
    report.group("sampling, 2^28 tokens");
    check_largest(report, device);
  });
}
