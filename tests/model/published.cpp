// Public models with attention, spelled as definitions: their parameters are as many as were published.
#include <array>
#include <string>
#include <string_view>

#include "moe_mamba/layers/attention.hpp"
#include "moe_mamba/layers/mamba.hpp"
#include "moe_mamba/layers/mlp.hpp"
#include "moe_mamba/layers/moe.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/language_model.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// Jiang et al. 2024, arXiv 2401.04088: "47B parameters, 13B active", 46.7 and 12.9 in its announcement.
using Mixtral8x7B =
    LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                  Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, Context<32768>, Rotary<1000000>>,
                         Moe<Experts<8>, TopK<2>, Hidden<14336>, SwiGlu, TopKThenSoftmax, BalanceLoss<1, 50>>>>;
static_assert(cost<Mixtral8x7B>.parameters == 46'702'792'704);
// Counted with the whole embedding, as published, and not with the row that a token has of it.
constexpr Index mixtral_active = cost<Mixtral8x7B>.active_parameters + Index{32000 - 1} * 4096;
static_assert(mixtral_active == 12'879'925'248);

/// Jiang et al. 2023, arXiv 2310.06825: a window of 4096 positions.
using Mistral7B =
    LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                  Repeat<32, Attention<Heads<32>, KeyValueHeads<8>, Context<4096>>, Mlp<Hidden<14336>, SwiGlu>>>;
static_assert(cost<Mistral7B>.parameters == 7'241'732'096);
// Keys and values of a window in each layer, 2 · 4096 · 8 · 128 numbers, and the position.
static_assert(cost<Mistral7B>.state_bytes == 32 * (2 * 4096 * 8 * 128 + 2) * 4);

/// Touvron et al. 2023, arXiv 2307.09288.
using Llama2With7B = LanguageModel<Vocabulary<32000>, Width<4096>, Head,
                                   Repeat<32, Attention<Heads<32>, Context<4096>>, Mlp<Hidden<11008>, SwiGlu>>>;
static_assert(cost<Llama2With7B>.parameters == 6'738'415'616);

/// Yang et al. 2024, arXiv 2407.10671: biases on queries, keys and values, a tied head.
using Qwen2With0_5B =
    LanguageModel<Vocabulary<151936>, Width<896>, PreNorm<RmsNorm<Epsilon<1, 1000000>>>,
                  FinalNorm<RmsNorm<Epsilon<1, 1000000>>>,
                  Repeat<24, Attention<Heads<14>, KeyValueHeads<2>, Context<32768>, Rotary<1000000>, InputBiases>,
                         Mlp<Hidden<4864>, SwiGlu>>>;
static_assert(cost<Qwen2With0_5B>.parameters == 494'032'768);

/// Lieber et al. 2024, arXiv 2403.19887: "12B active, 52B total". Layer i of 32 has attention, without positions, where i
/// mod 8 is 4, and Mamba elsewhere; then experts where i is odd, and an MLP elsewhere.
using JambaMoe = Moe<Experts<16>, TopK<2>, Hidden<14336>, SwiGlu, BalanceLoss<1, 1000>>;
using JambaMlp = Mlp<Hidden<14336>, SwiGlu>;
using JambaAttention = Attention<Heads<32>, KeyValueHeads<8>, Context<262144>, NoPositions>;
using JambaNorm = RmsNorm<Epsilon<1, 1000000>>;
using JambaMamba = Mamba<InnerNorm<JambaNorm>>;
using Jamba = LanguageModel<Vocabulary<65536>, Width<4096>, Head, PreNorm<JambaNorm>, FinalNorm<JambaNorm>,
                            Repeat<4, Repeat<2, JambaMamba, JambaMlp, JambaMamba, JambaMoe>, JambaAttention, JambaMlp,
                                   JambaMamba, JambaMoe, JambaMamba, JambaMlp, JambaMamba, JambaMoe>>;
static_assert(cost<Jamba>.parameters == 51'570'323'328);
static_assert(cost<Jamba>.active_parameters + Index{65536 - 1} * 4096 == 12'110'311'296);

template <class Definition>
bool has_parameter(std::string_view name) {
  for (const Parameter& parameter : parameter_list<Definition>()) {
    if (parameter.name.view() == name) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("Layers of published hybrids lie where their descriptions say", "[model][published]") {
  // Mixers and feed-forward layers are counted in turn: those of layer i are 2 i and 2 i + 1.
  for (int i = 0; i < 32; ++i) {
    const std::string mixer = "layers." + std::to_string(2 * i) + ".mixer.";
    const std::string feed_forward = "layers." + std::to_string(2 * i + 1) + ".mixer.";
    CHECK(has_parameter<Jamba>(mixer + "q_proj.weight") == (i % 8 == 4));
    CHECK(has_parameter<Jamba>(mixer + "A_log") == (i % 8 != 4));
    CHECK(has_parameter<Jamba>(feed_forward + "router.weight") == (i % 2 == 1));
  }
}

TEST_CASE("Attention's parameters have the names and shapes of public checkpoints", "[model][published]") {
  using Layer = Attention<Heads<4>, KeyValueHeads<2>, HeadWidth<6>, Context<8>, Biases>::Layer<10>;
  constexpr struct {
    std::string_view name;
    Index rows, columns;
  } expected[] = {{"q_proj.weight", 24, 10}, {"k_proj.weight", 12, 10}, {"v_proj.weight", 12, 10},
                  {"o_proj.weight", 10, 24}, {"q_proj.bias", 24, 1},    {"k_proj.bias", 12, 1},
                  {"v_proj.bias", 12, 1},    {"o_proj.bias", 10, 1}};
  REQUIRE(Layer::parameters.size() == std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) {
    CHECK(Layer::parameters[i].name.view() == expected[i].name);
    CHECK(Layer::parameters[i].shape[0] == expected[i].rows);
    CHECK(Layer::parameters[i].shape[1] == expected[i].columns);
    CHECK((Layer::parameters[i].kind == ParameterKind::matrix) == (i < 4));
  }
}
