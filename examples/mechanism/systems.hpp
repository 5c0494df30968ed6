#pragma once

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/model/cost.hpp"
#include "tasks.hpp"

/// The models that are compared.
namespace mechanism {

/// The longest sequence that can be tested.
inline constexpr Index longest_length = 65536;

// clang-format off
struct PlainMamba {
  static constexpr auto name = "Mamba";
  static constexpr bool attention = false;
  static constexpr Index longest = longest_length;
  using Net = LanguageModel<Vocabulary<vocabulary>, Width<72>,
                Repeat<2, Mamba<State<16>>>>;
};

struct MoeMamba {
  static constexpr auto name = "MoE-Mamba";
  static constexpr bool attention = false;
  static constexpr Index longest = longest_length;
  using Net = LanguageModel<Vocabulary<vocabulary>, Width<64>,
                Repeat<2, Mamba<State<16>>,
                          Moe<Experts<8>, Hidden<56>>>>;
};

struct Transformer {
  static constexpr auto name = "Transformer";
  static constexpr bool attention = true;
  static constexpr Index longest = 4096;  // which its context covers, with the markers of copying
  using Net = LanguageModel<Vocabulary<vocabulary>, Width<64>,
                Repeat<2, Attention<Heads<4>, Context<longest + 256>>,
                          Mlp<Hidden<184>>>>;
};
// clang-format on

inline constexpr Index most_active = cost<PlainMamba::Net>.active_parameters;
static_assert(cost<MoeMamba::Net>.active_parameters <= most_active);
static_assert(cost<MoeMamba::Net>.active_parameters > 0.95 * most_active);
static_assert(cost<Transformer::Net>.active_parameters <= most_active);
static_assert(cost<Transformer::Net>.active_parameters > 0.95 * most_active);

}  // namespace mechanism
