/// A single kernel call: a router that assigns each of three tokens to two of four experts.
#include <cmath>
#include <cstdio>
#include <vector>

#include "moe_mamba/cpu/calls.hpp"

using namespace moe_mamba;

int main() {
  constexpr int experts = 4, top_k = 2;
  constexpr std::size_t tokens = 3;
  const std::vector<float> logits{0, 2, 1, -1,  //
                                  3, 0, 0, 2,   //
                                  1, 1, 1, 1};
  std::vector<float> probabilities(tokens * experts), log_sum_exp(tokens), gates(tokens * top_k);
  std::vector<Index> chosen(tokens * top_k);
  std::vector<double> load(experts);

  cpu::Device device;
  const RouterMeans means = cpu::route<float, experts, top_k>(
      device, logits, GateOrder::top_k_then_softmax,
      {.probabilities = probabilities, .log_sum_exp = log_sum_exp, .experts = chosen, .gates = gates, .load = load});

  for (std::size_t t = 0; t < tokens; ++t) {
    std::printf("token %zu: %.3f of expert %td, %.3f of expert %td\n", t, gates[2 * t], chosen[2 * t], gates[2 * t + 1],
                chosen[2 * t + 1]);
  }
  std::printf("entropy %.3f nats, balance loss %.3f (1 if uniform)\n", means.entropy, means.balance);
  const std::vector<Index> expected{1, 2, 0, 3, 0, 1};  // ties go to the lowest expert
  return chosen == expected && std::abs(gates[0] + gates[1] - 1) < 1e-6f ? 0 : 1;
}
