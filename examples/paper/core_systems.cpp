/// What two cores train in half an hour: the paper's comparison, and its control without experts.
#include "catalogue.hpp"
#include "cpu_system.hpp"

namespace paper {

std::vector<Group> core_groups() {
  using Net = Width24;
  constexpr Index budget = Net::budget;
  return {{.title = "width 24",
           .recipe = {},
           .entries = {{cpu_system<Net::PlainMamba>("mamba", "Mamba"), 3, ""},
                       {cpu_system<Within<MoeMamba<Net, 32>, budget>>("moe-mamba", "MoE-Mamba"), 3, ""},
                       {cpu_system<Within<MambaMlp<Net>, budget>>("mamba-mlp", "Mamba-MLP"), 1, "moe-mamba"}}}};
}

}  // namespace paper
