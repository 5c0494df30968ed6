// expect: a layer lacks something that layers/layer.hpp asks for
// expect: ResidualStage<64, .*Hollow.*>
#include "definition.hpp"

using namespace moe_mamba;

struct Hollow {
  template <int Width>
  struct Layer {};
};

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Hollow>>;

constexpr auto parameters = cost<Net>.parameters;
