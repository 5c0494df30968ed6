#pragma once

#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/model/cost.hpp"

/// Sizes at which systems are compared: as many active parameters in each as in plain Mamba, or at most a twentieth fewer.
namespace paper {

using namespace moe_mamba;

/// A byte-level model of one width. A block of the mixtures is a Mamba layer and a feed-forward layer; plain Mamba has two
/// Mamba layers in place of each block, as in the paper.
template <Index W, Index BlockCount>
struct Size {
  static constexpr Index width = W, blocks = BlockCount;

  /// The model whose every block consists of the given layers.
  template <class... Layers>
  using Net = LanguageModel<Vocabulary<256>, Width<W>, Repeat<BlockCount, Layers...>>;

  using PlainMamba = LanguageModel<Vocabulary<256>, Width<W>, Repeat<2 * BlockCount, Mamba<>>>;

  /// Active parameters that no other system may exceed; total parameters of the control.
  static constexpr Index budget = cost<PlainMamba>.active_parameters;
};

/// The largest n, a multiple of `grain`, at which `Family::With<n>` has at most `budget` parameters, active ones unless
/// `total`. Parameters are affine in n: a hidden or an inner width.
template <class Family, Index grain = 8, bool total = false>
constexpr Index widest(Index budget) {
  constexpr auto parameters = [](const Cost& cost) { return total ? cost.parameters : cost.active_parameters; };
  constexpr Index at_16 = parameters(cost<typename Family::template With<16>>);
  constexpr Index each = (parameters(cost<typename Family::template With<32>>) - at_16) / 16;
  const Index lacking = at_16 - budget;
  const Index n = lacking > 0 ? 16 - (lacking + each - 1) / each : 16 - lacking / each;
  return n / grain * grain;
}

/// A system of a size: the definition whose only free width makes the best use of the budget.
template <class Family, Index budget, Index grain = 8>
using Within = typename Family::template With<widest<Family, grain>(budget)>;

}  // namespace paper
