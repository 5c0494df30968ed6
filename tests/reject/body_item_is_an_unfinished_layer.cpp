// expect: a layer does not meet the requirements of blocks/layer.hpp
// expect: FinishedLayer<Hollow::Layer<64> ?>
#include "definition.hpp"

using namespace moe_mamba;

struct Hollow {
  template <int Width>
  struct Layer {};
};

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Hollow>>;

constexpr auto parameters = cost<Net>.parameters;
