// expect: give the type a member static constexpr std::string_view spelling with a text that no other type has
// expect: NameOfType<.*Chosen
#include "definition.hpp"
#include "moe_mamba/language/spelling.hpp"

using namespace moe_mamba;

template <class T>
struct Chosen {
  template <int W>
  using Layer = MlpLayer<W, 4, Relu>;
};

// The name of a function of any arguments has three dots in it, and so has what clang leaves out of an array.
using Net = LanguageModel<Vocabulary<256>, Width<64>, Chosen<int(const char*, ...)>>;

const std::string text = spelling<Net>();
