#include <array>
#include <numeric>

#include "net.hpp"

double sum_of_logits(const moe_mamba::Model<Net>& model, moe_mamba::Token token) {
  moe_mamba::cpu::Device device;
  moe_mamba::Workspace<Net> workspace(device, {1, 1});
  std::array<float, Net::vocabulary> logits;
  model.forward(workspace, std::array{token}, {1, 1}, logits);
  return std::accumulate(logits.begin(), logits.end(), 0.0);
}
