// expect: your own with is_norm and a member template Layer<Width>
// expect: ModelNorm<.*Unfinished
#include "definition.hpp"

using namespace moe_mamba;

struct Unfinished {
  static constexpr bool is_norm = true;
};

using Net = LanguageModel<Vocabulary<256>, Width<64>, PreNorm<Unfinished>, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
