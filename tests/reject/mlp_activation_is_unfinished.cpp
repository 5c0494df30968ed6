// expect: your own with gated, value and derivative
// expect: MlpTakes<.*Half
#include "definition.hpp"

using namespace moe_mamba;

struct Half {
  static constexpr bool gated = false;
  template <class T>
  static T value(T x) {
    return x / 2;
  }
};

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mlp<Half>>;

constexpr auto parameters = cost<Net>.parameters;
