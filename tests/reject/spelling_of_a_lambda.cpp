// expect: give the type a member static constexpr std::string_view spelling with a text that no other type has
// expect: NameOfType<.*OfFunction
#include "definition.hpp"
#include "moe_mamba/language/spelling.hpp"

using namespace moe_mamba;

template <auto Function>
struct OfFunction {
  template <int W>
  using Layer = MlpLayer<W, 4, Relu>;
};

// All lambdas of the same parameters have one name.
using Net = LanguageModel<Vocabulary<256>, Width<64>, OfFunction<[](double x) { return x; }>>;

const std::string text = spelling<Net>();
