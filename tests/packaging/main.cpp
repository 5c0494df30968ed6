// A user's program: a model constructed here, its logits computed in the other file.
#include <array>
#include <cfenv>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "net.hpp"
#if defined(KERNELS_ELSEWHERE)
#include "second/net.hpp"

/// A logit of a model whose kernels another CMake call generated.
template <class S>
double other_logit() {
  const moe_mamba::Model<second::Net, S> model(moe_mamba::Seed{1});
  moe_mamba::cpu::Device device;
  moe_mamba::Workspace<second::Net, S> workspace(device, {1, 1});
  std::array<S, second::Net::vocabulary> logits;
  model.forward(workspace, std::array<moe_mamba::Token, 1>{3}, {1, 1}, logits);
  return static_cast<double>(logits[0]);
}
#else
template <class>
double other_logit() {
  return 0;
}
#endif

int main() {
  const int rounding = std::fegetround();
  moe_mamba::Model<Net> model(moe_mamba::Seed{1});
  try {
    moe_mamba::load(model, "there is no such file");
    return 1;
  } catch (const std::runtime_error&) {
  }
  const double sum = sum_of_logits(model, 3);
  if (std::abs(other_logit<float>() - other_logit<double>()) > 1e-3) return 1;
  std::printf("%lld parameters, sum of logits %g\n", static_cast<long long>(moe_mamba::cost<Net>.parameters), sum);
  return std::isfinite(sum) && sum != 0 && std::fegetround() == rounding ? 0 : 1;
}
