// expect: type/value mismatch at argument 2 in template parameter list|use of class template 'Mamba' requires template
// arguments expect: Mamba
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Mamba>>;

constexpr auto parameters = cost<Net>.parameters;
