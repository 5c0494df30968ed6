// A user's program with models on the Cpu and on a CUDA device, in C++ files.
#include <cstdio>
#include <moe_mamba/self_check.hpp>

#include "net.hpp"

int main() {
  const moe_mamba::Model<Net> model(moe_mamba::Seed{1});
  std::printf("sum of logits %g\n", sum_of_logits(model, 3));
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device\n");
    return 0;
  }
  moe_mamba::cuda::Device device;
  const moe_mamba::SelfCheck check = moe_mamba::self_check<Net, float>(device);
  std::printf("%s\n", check.text().c_str());
  return check.passed() ? 0 : 1;
}
