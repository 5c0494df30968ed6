// expect: Capacity and FloorCapacity exclude each other
// expect: OneCapacity<.*Moe<.*>, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Moe<Experts<4>, Capacity<1>, FloorCapacity<1>>>;

constexpr auto parameters = cost<Net>.parameters;
