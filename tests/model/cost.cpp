// Properties of definitions that are known at compile time.
#include "moe_mamba/model/cost.hpp"

#include <string>
#include <string_view>

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

using Mamba130m = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
using Paper =
    LanguageModel<Vocabulary<256>, Width<512>, Repeat<8, Mamba<State<16>>, Moe<Experts<32>, TopK<1>, Hidden<1536>>>>;

// The public mamba-130m's count, and the paper's MoE-Mamba over 256 symbols.
static_assert(cost<Mamba130m>.parameters == 129'135'360);
static_assert(cost<Paper>.parameters == 416'481'792);
static_assert(cost<Mamba130m>.active_parameters == cost<Mamba130m>.parameters);
static_assert(cost<Paper>.active_parameters < 27'000'000);

// 589,824 state updates per token, and three inputs of the convolution for each of 24 layers' 1536 channels.
static_assert(cost<Mamba130m>.state_bytes == 24 * 1536 * (16 + 3) * 4);
static_assert(cost<Mamba130m, double>.state_bytes == 2 * cost<Mamba130m>.state_bytes);
static_assert(cost<Mamba130m, bfloat16>.state_bytes == cost<Mamba130m>.state_bytes);

static_assert(cost<Mamba130m>.training_flops_per_token == 3 * cost<Mamba130m>.flops_per_token);

// The order of options makes no difference, not even to the layer's type.
static_assert(std::is_same_v<Mamba<State<8>, Expand<3>>::Layer<64>, Mamba<Expand<3>, State<8>>::Layer<64>>);
static_assert(std::is_same_v<Mamba<>::Layer<64>, Mamba<State<16>, Convolution<4>, StepRank<4>>::Layer<64>>);

// A group with a name is the same as its items.
using Block = Sequence<Mamba<>, Mlp<>>;
static_assert(cost<LanguageModel<Vocabulary<7>, Width<16>, Block, Block>>.parameters ==
              cost<LanguageModel<Vocabulary<7>, Repeat<2, Mamba<>, Mlp<>>, Width<16>>>.parameters);

// An untied head adds a matrix; one row of an untied embedding is active.
using Tied = LanguageModel<Vocabulary<100>, Width<16>, Mamba<>>;
using Own = LanguageModel<Vocabulary<100>, Width<16>, Mamba<>, Head>;
static_assert(cost<Own>.parameters == cost<Tied>.parameters + 1600);
static_assert(cost<Own>.active_parameters == cost<Tied>.active_parameters + 16);

// A gated activation has a third matrix, a shared expert is one more expert that is always active.
using Plain = LanguageModel<Vocabulary<4>, Width<16>, Moe<Experts<4>, Hidden<8>>>;
using Gated = LanguageModel<Vocabulary<4>, Width<16>, Moe<Experts<4>, Hidden<8>, SwiGlu>>;
using Shared = LanguageModel<Vocabulary<4>, Width<16>, Moe<Experts<4>, Hidden<8>, SharedExperts<1>>>;
static_assert(cost<Gated>.parameters == cost<Plain>.parameters + 4 * 16 * 8);
static_assert(cost<Shared>.active_parameters == cost<Plain>.active_parameters + 2 * 16 * 8);

template <class Definition>
std::string listing() {
  std::string text;
  for (const Parameter& parameter : parameter_list<Definition>()) {
    text += std::string(parameter.name.view()) + " @" + std::to_string(parameter.offset);
    for (int i = 0; i < parameter.rank; ++i) text += " " + std::to_string(parameter.shape[static_cast<std::size_t>(i)]);
    text += "\n";
  }
  return text;
}

}  // namespace

TEST_CASE("parameters are contiguous and named by layer", "[model]") {
  using Net = LanguageModel<Vocabulary<5>, Width<4>, Repeat<2, Mlp<Hidden<3>>>, RmsNorm<>,
                            Residual<LayerNorm<>, Parallel<Mlp<Hidden<2>>, Mlp<Hidden<1>>>>, FinalNorm<NoNorm>, Head>;
  CHECK(listing<Net>() ==
        "embedding.weight @0 5 4\n"
        "layers.0.norm.weight @20 4\n"
        "layers.0.mixer.up.weight @24 3 4\n"
        "layers.0.mixer.down.weight @36 4 3\n"
        "layers.1.norm.weight @48 4\n"
        "layers.1.mixer.up.weight @52 3 4\n"
        "layers.1.mixer.down.weight @64 4 3\n"
        "layers.2.norm.weight @76 4\n"
        "layers.3.norm.weight @80 4\n"
        "layers.3.norm.bias @84 4\n"
        "layers.3.mixer.0.up.weight @88 2 4\n"
        "layers.3.mixer.0.down.weight @96 4 2\n"
        "layers.3.mixer.1.up.weight @104 1 4\n"
        "layers.3.mixer.1.down.weight @108 4 1\n"
        "lm_head.weight @112 5 4\n");
}

TEST_CASE("the list of parameters has no gaps and ends at the count", "[model]") {
  const auto check = [](const auto& list, Index total) {
    Index offset = 0;
    for (const Parameter& parameter : list) {
      CHECK(parameter.offset == offset);
      offset += parameter.size();
    }
    CHECK(offset == total);
  };
  check(parameter_list<Mamba130m>(), cost<Mamba130m>.parameters);
  check(parameter_list<Paper>(), cost<Paper>.parameters);
  using Series = SequenceModel<Inputs<4>, Outputs<2>, Width<32>, Repeat<2, Mamba<State<8>>>>;
  check(parameter_list<Series>(), cost<Series>.parameters);
}

TEST_CASE("only matrices are subject to weight decay, unless everything is", "[model]") {
  for (const Parameter& parameter : parameter_list<Mamba130m>()) {
    const std::string_view name = parameter.name.view();
    const bool is_matrix =
        name.ends_with("proj.weight") || name.ends_with("conv1d.weight") || name == "embedding.weight";
    CHECK(decays(parameter.kind, Decay::matrices) == is_matrix);
    CHECK(decays(parameter.kind, Decay::everything));
  }
}
