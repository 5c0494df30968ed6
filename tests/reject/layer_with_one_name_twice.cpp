// expect: two parameters of a layer have one name, by which files know them
// expect: NamesOfParameters<.*Scales
#include "definition.hpp"
#include "moe_mamba/blocks/layer.hpp"

using namespace moe_mamba;

struct Scales {
  template <int Width>
  struct Layer : LayerDefaults {
    template <class Bind>
    struct Weights {
      constexpr explicit Weights(Bind& bind)
          : first(bind.vector("scale", Width, ParameterKind::gain, Initializer{})),
            second(bind.vector("scale", Width, ParameterKind::gain, Initializer{})) {}
      typename Bind::Vector first, second;
    };
    static constexpr Index active_parameters = 2 * Width;
    static constexpr double flops_per_token = 0;
  };
};

constexpr Index count = LanguageModel<Vocabulary<256>, Width<64>, Scales, Scales>::Body::parameter_count;
