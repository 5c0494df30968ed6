// expect: type/value mismatch at argument 2|use of class template 'Mamba' requires template arguments
// expect: Mamba
// errors: 4
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Mamba>>;

constexpr auto parameters = cost<Net>.parameters;
