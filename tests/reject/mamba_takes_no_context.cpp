// expect: Mamba takes only the options State<N>, Convolution<K>, Expand<F> or Inner<E>, StepRank<R>, .*: MambaTakes
// expect: MambaTakes<.*Mamba<.*, moe_mamba::Context<3> ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<Context<3>>>;

constexpr auto parameters = cost<Net>.parameters;
