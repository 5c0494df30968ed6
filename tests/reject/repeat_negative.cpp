// expect: Repeat<Times, items...>: Times must be 1 or more
// expect: Repeat<-3, moe_mamba::Mamba<> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Repeat<-3, Mamba<>>>;

constexpr auto parameters = cost<Net>.parameters;
