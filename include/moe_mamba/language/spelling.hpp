#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "moe_mamba/language/type_name.hpp"

/// A definition as text in the definition language, in a canonical form: independent of the order of options, of
/// spelled-out defaults, and of names for groups of layers.
namespace moe_mamba::inline v0_2 {

/// Whether a text includes the weights of auxiliary losses and how parameters are initialised, which do not affect what
/// a model computes from its parameters.
enum class AuxiliaryLosses { left_out, spelled };

namespace detail {

/// Builds a template's name and arguments.
class Spelling {
 public:
  explicit Spelling(std::string name) : text_(std::move(name) + '<') {}

  Spelling& add(const std::string& argument) {
    text_ += (text_.back() == '<' ? "" : ", ") + argument;
    return *this;
  }
  /// Omitted if it is the default.
  Spelling& number(const char* option, Index value, Index standard = -1) {
    return value == standard ? *this : add(std::string(option) + '<' + std::to_string(value) + '>');
  }
  Spelling& ratio(const char* option, Ratio value, Ratio standard) {
    const int common = std::max(std::gcd(value.numerator, value.denominator), 1);
    if (std::int64_t{value.numerator} * standard.denominator == std::int64_t{standard.numerator} * value.denominator) {
      return *this;
    }
    return add(std::string(option) + '<' + std::to_string(value.numerator / common) + ", " +
               std::to_string(value.denominator / common) + '>');
  }
  Spelling& flag(const char* option, bool given) { return given ? add(option) : *this; }

  std::string text() const { return text_ + '>'; }

 private:
  std::string text_;
};

/// The spelling of a layer, norm or activation in a model of width `width`. For a user-defined one, the name of its
/// type or its member `spelling`.
template <class T>
struct SpellingOf {
  static std::string text(int /*width*/, AuxiliaryLosses) { return type_name<T>(); }
};

template <class T>
std::string spelled(int width = 1, AuxiliaryLosses losses = AuxiliaryLosses::left_out) {
  return SpellingOf<T>::text(width, losses);
}

template <class... Options>
struct SpellingOf<RmsNorm<Options...>> {
  static std::string text(int, AuxiliaryLosses) {
    constexpr NormOptions norm = RmsNorm<Options...>::options;
    return Spelling("RmsNorm").flag("NoGain", !norm.gain).ratio("Epsilon", norm.epsilon, NormOptions{}.epsilon).text();
  }
};

template <class... Options>
struct SpellingOf<LayerNorm<Options...>> {
  static std::string text(int, AuxiliaryLosses) {
    return Spelling("LayerNorm").ratio("Epsilon", LayerNorm<Options...>::options.epsilon, NormOptions{}.epsilon).text();
  }
};

/// Adds a router's options, except for the numbers of experts.
inline void add_routing(Spelling& spelling, const RoutingOptions& given, AuxiliaryLosses losses) {
  const RoutingOptions standard;
  spelling.flag("TopKThenSoftmax", given.order == GateOrder::top_k_then_softmax)
      .flag("SigmoidThenTopK", given.order == GateOrder::sigmoid_then_top_k)
      .flag("NormalisedGates", given.normalised_gates)
      .ratio("GateScale", given.gate_scale, standard.gate_scale)
      .flag("RouterBias", given.router_bias)
      .flag("SelectionBias", given.selection_bias)
      .ratio(given.floor_capacity ? "FloorCapacity" : "Capacity", given.capacity, standard.capacity);
  if (losses == AuxiliaryLosses::spelled) {
    spelling.ratio("BalanceLoss", given.balance, standard.balance)
        .ratio("ZLoss", given.z, standard.z)
        .flag("JointFanIn", given.joint_fan_in);
  }
}

template <class... Options>
struct SpellingOf<Mamba<Options...>> {
  static std::string text(int width, AuxiliaryLosses losses) {
    using InnerNorm = typename Mamba<Options...>::inner_norm;
    using Activation = typename Mamba<Options...>::expert_activation;
    const MambaOptions given = Mamba<Options...>::options.of_width(width), standard = MambaOptions{}.of_width(width);
    const MambaExperts& experts = given.experts;
    Spelling spelling("Mamba");
    spelling.number("State", given.states, standard.states).number("Convolution", given.taps, standard.taps);
    if (given.inner % width == 0) {
      spelling.number("Expand", given.inner / width, standard.expand);
    } else {
      spelling.number("Inner", given.inner);
    }
    spelling.number("StepRank", given.step_rank, standard.step_rank);
    if (!std::is_same_v<InnerNorm, NoNorm>) spelling.add("InnerNorm<" + spelled<InnerNorm>() + '>');
    spelling.flag("ProjectionBias", given.projection_bias).flag("NoConvolutionBias", !given.convolution_bias);
    if (experts.most() > 0) {
      spelling.number("InputExperts", experts.input, 0)
          .number("GateExperts", experts.gate, 0)
          .number("OutputExperts", experts.output, 0)
          .number("TopK", experts.routing.top_k, standard.experts.routing.top_k)
          .number("Hidden", experts.hidden, 0);
      if (!std::is_same_v<Activation, Relu>) spelling.add(spelled<Activation>());
      spelling.flag("SeparateRouters", experts.separate_routers);
      add_routing(spelling, experts.routing, losses);
    }
    return spelling.text();
  }
};

template <class... Options>
struct SpellingOf<Attention<Options...>> {
  static std::string text(int width, AuxiliaryLosses) {
    constexpr AttentionOptions options = Attention<Options...>::options;
    const AttentionOptions given = options.of_width(width),
                           standard = AttentionOptions{.heads = given.heads}.of_width(width);
    Spelling spelling("Attention");
    spelling.number("Heads", given.heads)
        .number("KeyValueHeads", given.key_value_heads, standard.key_value_heads)
        .number("HeadWidth", given.head_width, standard.head_width)
        .number("Context", given.context);
    if (options.positions) {
      spelling.number("Rotary", given.rotary_base, standard.rotary_base)
          .number("RotaryWidth", given.rotary_width, given.head_width);
    }
    return spelling.flag("NoPositions", !options.positions)
        .flag("InputBiases", given.biases == AttentionBiases::input)
        .flag("Biases", given.biases == AttentionBiases::all)
        .text();
  }
};

template <class... Options>
struct SpellingOf<Mlp<Options...>> {
  static std::string text(int width, AuxiliaryLosses) {
    using Definition = Mlp<Options...>;
    using Activation = typename Definition::activation;
    Spelling spelling("Mlp");
    spelling.number("Hidden", Definition::hidden == 0 ? 4 * width : Definition::hidden, 4 * width);
    return (std::is_same_v<Activation, Relu> ? spelling : spelling.add(spelled<Activation>())).text();
  }
};

template <class... Options>
struct SpellingOf<Moe<Options...>> {
  static std::string text(int width, AuxiliaryLosses losses) {
    using Activation = typename Moe<Options...>::activation;
    const MoeOptions given = Moe<Options...>::options.of_width(width), standard = MoeOptions{}.of_width(width);
    Spelling spelling("Moe");
    spelling.number("Experts", given.experts)
        .number("TopK", given.top_k, standard.top_k)
        .number("Hidden", given.hidden, standard.hidden)
        .number("SharedExperts", given.shared_experts, standard.shared_experts);
    if (!std::is_same_v<Activation, Relu>) spelling.add(spelled<Activation>());
    add_routing(spelling, given, losses);
    return spelling.text();
  }
};

template <class First, class Second>
struct SpellingOf<Parallel<First, Second>> {
  static std::string text(int width, AuxiliaryLosses losses) {
    return Spelling("Parallel").add(spelled<First>(width, losses)).add(spelled<Second>(width, losses)).text();
  }
};

/// The items of a body: one Repeat if the whole body is periodic, otherwise one per sequence of equal items.
inline std::string body_spelling(const std::vector<std::string>& items) {
  const std::size_t count = items.size();
  const auto join = [&](std::size_t first, std::size_t length) {
    std::string text;
    for (std::size_t i = first; i < first + length; ++i) text += (text.empty() ? "" : ", ") + items[i];
    return text;
  };
  for (std::size_t period = 1; 2 * period <= count; ++period) {
    bool recurs = count % period == 0;
    for (std::size_t i = period; i < count && recurs; ++i) recurs = items[i] == items[i - period];
    if (recurs) return "Repeat<" + std::to_string(count / period) + ", " + join(0, period) + ">";
  }
  std::string text;
  for (std::size_t i = 0; i < count;) {
    std::size_t end = i + 1;
    while (end < count && items[end] == items[i]) ++end;
    const std::string item = end - i == 1 ? items[i] : "Repeat<" + std::to_string(end - i) + ", " + items[i] + ">";
    text += (text.empty() ? "" : ", ") + item;
    i = end;
  }
  return text;
}

/// The items of a body, with groups expanded; each layer with its pre-norm, norms of the residual stream without.
class BodySpelling {
 public:
  BodySpelling(int width, std::string pre_norm, AuxiliaryLosses losses)
      : width_(width), pre_norm_(std::move(pre_norm)), losses_(losses) {}

  template <class Item>
  void add() {
    add(static_cast<const Item*>(nullptr));
  }

  /// The norm of the first layer, which PreNorm has in the canonical form.
  std::string pre_norm() const {
    for (const auto& [norm, item] : items_) {
      if (!norm.empty()) return norm;
    }
    return spelled<RmsNorm<>>();
  }

  std::string text() const {
    std::vector<std::string> items;
    const std::string usual = pre_norm();
    for (const auto& [norm, item] : items_) {
      if (norm.empty() || norm == usual) {
        items.push_back(item);
      } else {
        items.push_back(Spelling("Residual").add(norm).add(item).text());
      }
    }
    return body_spelling(items);
  }

 private:
  template <class Item>
  void add(const Item*) {
    if constexpr (NormDefinition<Item>) {
      items_.emplace_back("", spelled<Item>());
    } else if constexpr (!is_model_option<Item>) {
      items_.emplace_back(pre_norm_, spelled<Item>(width_, losses_));
    }
  }
  template <class Norm, class Layer>
  void add(const Residual<Norm, Layer>*) {
    items_.emplace_back(spelled<Norm>(), spelled<Layer>(width_, losses_));
  }
  template <class... Items>
  void add(const Sequence<Items...>*) {
    (add<Items>(), ...);
  }
  template <int Times, class... Items>
  void add(const Repeat<Times, Items...>*) {
    for (int time = 0; time < Times; ++time) (add<Items>(), ...);
  }

  int width_;
  std::string pre_norm_;
  AuxiliaryLosses losses_;
  std::vector<std::pair<std::string, std::string>> items_;  // norm, layer
};

/// Adds the options that language and sequence models have in common.
template <class Parts, class... Arguments>
std::string model_spelling(Spelling spelling, AuxiliaryLosses losses) {
  BodySpelling body(Parts::width, spelled<typename Parts::PreNormDefinition>(), losses);
  (body.template add<Arguments>(), ...);
  const std::string standard = spelled<RmsNorm<>>(), final_norm = spelled<typename Parts::FinalNormDefinition>();
  if (final_norm != standard) spelling.add("FinalNorm<" + final_norm + '>');
  if (body.pre_norm() != standard) spelling.add("PreNorm<" + body.pre_norm() + '>');
  const bool average = is_one_of<AverageAuxiliaryLosses, Arguments...> && Parts::Body::auxiliary_count > 1;
  spelling.flag("AverageAuxiliaryLosses", losses == AuxiliaryLosses::spelled && average);
  const std::string items = body.text();
  return (items.empty() ? spelling : spelling.add(items)).text();
}

template <class... Arguments>
struct SpellingOf<LanguageModel<Arguments...>> {
  static std::string text(int, AuxiliaryLosses losses) {
    using Definition = LanguageModel<Arguments...>;
    Spelling spelling("LanguageModel");
    spelling.number("Vocabulary", Definition::vocabulary)
        .number("Width", Definition::width)
        .flag("Head", !Definition::tied_head)
        .flag("UnitFanIn", losses == AuxiliaryLosses::spelled && is_one_of<UnitFanIn, Arguments...>);
    return model_spelling<typename Definition::Parts, Arguments...>(spelling, losses);
  }
};

template <class... Arguments>
struct SpellingOf<SequenceModel<Arguments...>> {
  static std::string text(int, AuxiliaryLosses losses) {
    using Definition = SequenceModel<Arguments...>;
    Spelling spelling("SequenceModel");
    spelling.number("Inputs", Definition::input_width)
        .number("Outputs", Definition::output_width)
        .number("Width", Definition::width);
    return model_spelling<typename Definition::Parts, Arguments...>(spelling, losses);
  }
};

}  // namespace detail

/// A model's definition as text, such as "LanguageModel<Vocabulary<256>, Width<64>, Repeat<2, Mamba<>>>". Definitions
/// with the same text compute the same from the same parameters. User-defined layers, norms and activations appear
/// under the qualified names of their types, or their members `spelling`. Two types that functions define under the
/// same name need a member `spelling` to be told apart: clang omits the function from the name of a local type.
template <class Definition>
std::string spelling(AuxiliaryLosses losses = AuxiliaryLosses::left_out) {
  return detail::spelled<Definition>(1, losses);
}

}  // namespace moe_mamba::inline v0_2
