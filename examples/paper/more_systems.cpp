/// What --hours adds on two cores: numbers of experts, other arrangements, shares of the parameters, a second size.
#include "catalogue.hpp"
#include "cpu_system.hpp"

namespace paper {
namespace {

constexpr Index budget = Width24::budget;

template <Index E>
Entry experts() {
  return {cpu_system<Within<MoeMamba<Width24, E>, budget>>(
              "moe-mamba-" + std::to_string(E), "MoE-Mamba, " + std::to_string(E) + (E == 1 ? " expert" : " experts")),
          1, "moe-mamba"};
}

/// Fewer experts where they are wider, as in the paper, whose ratio 5 : 1 has experts too narrow to be had at this width.
template <Index E, Index ExpertCount>
Entry share(const std::string& key, const std::string& ratio) {
  return {cpu_system<Within<MambaShare<Width24, E, ExpertCount>, budget>>("share-" + key,
                                                                          "MoE-Mamba, Mamba : experts " + ratio),
          1, "moe-mamba"};
}

}  // namespace

std::vector<Group> more_groups() {
  std::vector<Group> groups = core_groups();
  auto& entries = groups.front().entries;
  const auto add = [&](Entry entry) { entries.push_back(std::move(entry)); };
  add({cpu_system<Within<Transformer<Width24, cpu_length>, budget>>("transformer", "Transformer"), 1, ""});
  add({cpu_system<Within<TransformerMoe<Width24, cpu_length, 32>, budget>>("transformer-moe", "Transformer-MoE"), 1,
       ""});
  add(experts<1>());
  add(experts<8>());
  add(experts<128>());
  add({cpu_system<TotalControl<Width24, 4>>("total-control", "MoE-Mamba, 4 experts, plain Mamba's total"), 1,
       "moe-mamba"});
  add({cpu_system<Within<ParallelMoeMamba<Width24, 32>, budget>>("parallel", "Parallel MoE-Mamba"), 1, "moe-mamba"});
  add(experts<4>());
  add(experts<16>());
  add(experts<64>());
  add(experts<2>());
  add(share<16, 19>("1-5", "1 : 5"));
  add(share<32, 24>("2-4", "2 : 4"));
  add(share<64, 48>("4-2", "4 : 2"));
  for (Entry& entry : inner_every()) add(std::move(entry));
  for (Entry& entry : inner_other()) add(std::move(entry));

  using Net = Width48;
  groups.push_back(
      {.title = "width 48",
       .recipe = {.middle_rate = 1e-2},
       .entries = {{cpu_system<Net::PlainMamba>("mamba-48", "Mamba"), 1, ""},
                   {cpu_system<Within<MoeMamba<Net, 32>, Net::budget>>("moe-mamba-48", "MoE-Mamba"), 1, ""}}});
  return groups;
}

}  // namespace paper
