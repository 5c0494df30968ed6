/// What a CUDA device trains: --cuda, three sizes whose runs take minutes, and --full, the paper's own.
#include "device_systems.hpp"

#include "catalogue.hpp"
#include "moe_mamba/cuda.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "training.hpp"

namespace paper {
namespace {

template <class Definition>
System device_system(std::string key, std::string name) {
  return system_of<Definition, moe_mamba::bfloat16>(std::move(key), std::move(name), [] { return moe_mamba::Cuda(); });
}

/// Plain Mamba and MoE-Mamba of a width.
template <class Size>
Group pair(Index steps, double rate, Index seeds) {
  const std::string width = std::to_string(Size::width);
  return {.title = "width " + width + ", CUDA device",
          .recipe = {.length = 512, .batch = 64, .steps = steps, .tuning_steps = steps / 8, .middle_rate = rate},
          .entries = {{device_system<Plain<Size>>("mamba-" + width, "Mamba"), seeds, ""},
                      {device_system<Mixture<Size>>("moe-mamba-" + width, "MoE-Mamba"), seeds, ""}}};
}

}  // namespace

std::vector<Group> device_groups() {
  return {pair<Width64>(12000, 1.2e-2, 3), pair<Width128>(20000, 1.2e-2, 1), pair<Width256>(14000, 6e-3, 1)};
}

std::vector<Group> full_groups() {
  const Recipe recipe{.length = 1024, .batch = 64, .steps = 150'000, .tuning_steps = 18'750, .middle_rate = 2e-3};
  return {{.title = "the paper's 25 million active parameters, over bytes",
           .recipe = recipe,
           .entries = {{device_system<FullPlain>("mamba-25m", "Mamba-25M"), 1, ""},
                       {device_system<FullMixture>("moe-mamba-25m", "MoE-Mamba-25M"), 1, ""}}}};
}

}  // namespace paper
