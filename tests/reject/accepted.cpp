// A control: the correct form of everything that the other programs here get wrong.
#include "definition.hpp"

using namespace moe_mamba;

struct Own {
  template <int Width>
  using Layer = Mamba<State<3>>::Layer<Width>;
};

using Net = LanguageModel<
    Width<64>, PreNorm<LayerNorm<Epsilon<1, 1000>>>, FinalNorm<NoNorm>, Head, UnitFanIn, AverageAuxiliaryLosses,
    RmsNorm<>,
    Repeat<2, Mamba<StepRank<3>, Convolution<3>, Expand<1>, State<16>>,
           Mamba<Inner<65>, InputExperts<4>, GateExperts<4>, OutputExperts<4>, SharedRouter, TopK<2>, TopKThenSoftmax>,
           Mamba<InputExperts<4>, OutputExperts<2>, SeparateRouters, Hidden<3>, Gelu, FloorCapacity<1>, ZLoss<1, 1000>>,
           Moe<Experts<4>, TopK<4>, Hidden<5>, SharedExperts<1>, SwiGlu, TopKThenSoftmax, Capacity<5, 4>,
               BalanceLoss<0>, ZLoss<1, 1000>, JointFanIn>>,
    Sequence<Own, Residual<NoNorm, Mlp<Gelu>>>,
    Attention<Rotary<1000>, Heads<6>, KeyValueHeads<3>, RotaryWidth<4>, HeadWidth<5>, Context<9>, Biases>,
    Attention<Heads<64>, Context<1>, NoPositions, InputBiases>,
    Parallel<Mamba<>, Moe<GateScale<5, 2>, NormalisedGates, SelectionBias, SigmoidThenTopK, TopK<2>, Experts<3>>>,
    Moe<Experts<1>, FloorCapacity<5, 4>>, Vocabulary<256>>;
using Series = SequenceModel<Outputs<2>, Inputs<4>, Width<1>, Mamba<State<1>>>;

static_assert(cost<Net>.parameters > cost<Net>.active_parameters);
static_assert(cost<Series>.parameters > 0);
