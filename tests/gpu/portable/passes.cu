// Every operation in one file, compiled for devices other than the one that tests run on.
#include "model/nets.hpp"
#include "moe_mamba/cuda.cuh"

namespace {

using namespace moe_mamba;

/// A layer of each kind, with every option that has separate kernels.
using Everything = LanguageModel<
    Vocabulary<7>, Width<5>, Head, FinalNorm<LayerNorm<>>,
    Parallel<Mamba<State<3>, InnerNorm<RmsNorm<NoGain>>, ProjectionBias>,
             Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<4>, Context<4>, Biases>>,
    Moe<Experts<4>, TopK<2>, Hidden<3>, SwiGlu, TopKThenSoftmax, SharedExperts<1>, ZLoss<1, 10>, Capacity<3, 4>>,
    Residual<NoNorm, Mlp<Hidden<4>, GeGlu>>, LayerNorm<>, RmsNorm<>, Mlp<Hidden<4>, Gelu>,
    Moe<Experts<3>, TopK<1>, Hidden<2>, Silu, SigmoidThenTopK, RouterBias>,
    Moe<Experts<4>, TopK<2>, Hidden<3>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>>;

/// The number of states that needs the most shared memory.
using Series = SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Mamba<State<40>>, Mlp<Hidden<2>, Relu>>;

}  // namespace

template struct moe_mamba::PassesOf<Everything, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<Everything, moe_mamba::bfloat16, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<Series, float, moe_mamba::Cuda>;
template struct moe_mamba::PassesOf<Series, moe_mamba::bfloat16, moe_mamba::Cuda>;
