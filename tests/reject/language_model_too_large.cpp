// expect: a model must have fewer than 2\^60 parameters, and this definition has as many or more
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<268435456>, Width<1048576>, Head,
                          Repeat<100000, Moe<Experts<65536>, Hidden<16777216>>, Repeat<1000000, Mamba<>>>>;

constexpr Cost of_net = cost<Net>;
