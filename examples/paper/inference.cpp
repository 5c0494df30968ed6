#include "inference.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "cpu_system.hpp"

namespace paper {
namespace {

constexpr std::array<Index, 8> contexts = {1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};
constexpr Index budget = Width24::budget, measured_steps = 64;

/// A definition that attends to N bytes, if it has attention.
template <Index N>
using TransformerOf = Within<Transformer<Width24, N>, budget>;
template <Index N>
using TransformerMoeOf = Within<TransformerMoe<Width24, N, 32>, budget>;
template <Index>
using MambaOf = Width24::PlainMamba;
template <Index>
using MoeMambaOf = Within<MoeMamba<Width24, 32>, budget>;

/// The state's bytes are affine in the context.
template <template <Index> class Of>
Index state_bytes(Index context) {
  constexpr Index at_1024 = cost<Of<1024>>.state_bytes, each = (cost<Of<2048>>.state_bytes - at_1024) / 1024;
  return at_1024 + each * (context - 1024);
}

template <template <Index> class Of>
std::string rows(const char* system, int threads, const std::function<bool()>& stop) {
  using Definition = Of<contexts.back() + measured_steps>;
  constexpr Index chunk = 512;
  moe_mamba::Cpu device(moe_mamba::Threads{1}), readers(moe_mamba::Threads{threads});
  const moe_mamba::Model<Definition> model(moe_mamba::Seed{1});
  moe_mamba::Workspace<Definition> reading(readers, {1, chunk}), stepping(device, {1, 1});
  moe_mamba::States<Definition> state(1);
  std::vector<moe_mamba::Token> text(chunk);
  std::vector<float> logits(256);
  moe_mamba::Random random(moe_mamba::Seed{2});
  Index at = 0;
  std::string csv;
  for (const Index context : contexts) {
    while (at < context) {
      if (stop()) return "";
      const Index count = std::min(chunk, context - at);
      for (auto& token : text) token = static_cast<moe_mamba::Token>(random.below(256));
      model.forward_last(reading, std::span(text).first(static_cast<std::size_t>(count)), {1, count}, logits, &state);
      at += count;
    }
    std::vector<double> seconds;
    for (Index step = 0; step < measured_steps; ++step, ++at) {
      const double before = seconds_now();
      model.step(stepping, state, std::span(text).first(1), logits);
      seconds.push_back(seconds_now() - before);
    }
    std::nth_element(seconds.begin(), seconds.begin() + measured_steps / 2, seconds.end());
    csv += support::format("%s,%lld,%.3f,%lld\n", system, static_cast<long long>(context),
                           1e6 * seconds[measured_steps / 2], static_cast<long long>(state_bytes<Of>(context)));
  }
  return csv;
}

}  // namespace

std::string inference_csv(int threads, const std::function<bool()>& stop) {
  std::string csv = "system,context,microseconds_per_token,state_bytes\n";
  csv += rows<MambaOf>("Mamba", threads, stop) + rows<MoeMambaOf>("MoE-Mamba", threads, stop);
  csv += rows<TransformerOf>("Transformer", threads, stop) + rows<TransformerMoeOf>("Transformer-MoE", threads, stop);
  return stop() ? "" : csv;
}

}  // namespace paper
