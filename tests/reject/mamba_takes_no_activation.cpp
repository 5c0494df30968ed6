// expect: Mamba takes only the options State<N>, Convolution<K>, Expand<F>, StepRank<R>, .*: MambaTakes
// expect: MambaTakes<.*Mamba<.*, moe_mamba::Relu ?>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<Relu>>;

constexpr auto parameters = cost<Net>.parameters;
