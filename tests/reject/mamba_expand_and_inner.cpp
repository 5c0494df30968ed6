// expect: Mamba: Expand<F> and Inner<E> both state the inner width; give one of them
// expect: ExpandOrInner<.*Mamba<.*, 2>
#include "definition.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<Expand<2>, Inner<100>>>;

constexpr auto parameters = cost<Net>.parameters;
