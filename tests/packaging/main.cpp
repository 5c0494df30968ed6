// A program of somebody else: one model made here, its logits computed in the other file.
#include <cfenv>
#include <cmath>
#include <cstdio>
#include <stdexcept>

#include "net.hpp"

int main() {
  const int rounding = std::fegetround();
  moe_mamba::Model<Net> model(moe_mamba::Seed{1});
  try {
    moe_mamba::load(model, "there is no such file");
    return 1;
  } catch (const std::runtime_error&) {
  }
  const double sum = sum_of_logits(model, 3);
  std::printf("%lld parameters, sum of logits %g\n", static_cast<long long>(moe_mamba::cost<Net>.parameters), sum);
  return std::isfinite(sum) && sum != 0 && std::fegetround() == rounding ? 0 : 1;
}
