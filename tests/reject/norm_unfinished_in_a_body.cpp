// expect: a norm does not meet the requirements of blocks/layer.hpp
// expect: FinishedNorm<Hollow::Layer<64> ?>
#include "definition.hpp"

using namespace moe_mamba;

struct Hollow {
  static constexpr bool is_norm = true;
  template <int Width>
  struct Layer {};
};

using Net = LanguageModel<Vocabulary<256>, Width<64>, Hollow, Mamba<>>;

constexpr auto parameters = cost<Net>.parameters;
