#pragma once

#include <limits>
#include <type_traits>

#include "moe_mamba/core/ratio.hpp"
#include "moe_mamba/core/static_check.hpp"

/// Options of the definition language: type tags that a layer or model takes in any order, and their lookup and checks.
/// The options of a layer and their defaults are documented at the layer.
namespace moe_mamba::inline v0_2 {

// clang-format off
template <int N> struct Vocabulary   { static constexpr int value = N; };  ///< number of token ids
template <int N> struct Width        { static constexpr int value = N; };  ///< of the residual stream
template <int N> struct Inputs       { static constexpr int value = N; };  ///< real-valued inputs per step
template <int N> struct Outputs      { static constexpr int value = N; };  ///< real-valued outputs per step
template <int N> struct State        { static constexpr int value = N; };  ///< states per channel
template <int N> struct Convolution  { static constexpr int value = N; };  ///< taps of the causal convolution
template <int N> struct Expand       { static constexpr int value = N; };  ///< inner width / width
template <int N> struct Inner        { static constexpr int value = N; };  ///< inner width of a Mamba block
template <int N> struct StepRank     { static constexpr int value = N; };  ///< rank of the step size's projection
template <int N> struct Hidden       { static constexpr int value = N; };  ///< width between the two products of an MLP
template <int N> struct Experts      { static constexpr int value = N; };  ///< number of routed experts
template <int N> struct TopK         { static constexpr int value = N; };  ///< experts selected per token
template <int N> struct SharedExperts{ static constexpr int value = N; };  ///< experts that every token uses
template <int N> struct InputExperts { static constexpr int value = N; };  ///< of a Mamba block's projection to x
template <int N> struct GateExperts  { static constexpr int value = N; };  ///< of that to the gate z
template <int N> struct OutputExperts{ static constexpr int value = N; };  ///< of that out of the block
template <int N> struct Heads        { static constexpr int value = N; };  ///< query heads
template <int N> struct KeyValueHeads{ static constexpr int value = N; };  ///< key/value heads, shared by the query heads
template <int N> struct HeadWidth    { static constexpr int value = N; };  ///< width of a head
template <int N> struct Context      { static constexpr int value = N; };  ///< last positions that a step attends to, its own included
template <int N> struct Rotary       { static constexpr int value = N; };  ///< base of the rotary frequencies
template <int N> struct RotaryWidth  { static constexpr int value = N; };  ///< part of a head's width that is rotated

/// A ratio, since a floating-point number cannot be a template argument everywhere: Capacity<5, 4> is 1.25.
template <int Numerator, int Denominator = 1> struct Capacity    { static constexpr int numerator = Numerator, denominator = Denominator; };
template <int Numerator, int Denominator = 1> struct FloorCapacity { static constexpr int numerator = Numerator, denominator = Denominator; };
template <int Numerator, int Denominator = 1> struct BalanceLoss { static constexpr int numerator = Numerator, denominator = Denominator; };
template <int Numerator, int Denominator = 1> struct ZLoss       { static constexpr int numerator = Numerator, denominator = Denominator; };
template <int Numerator, int Denominator = 1> struct GateScale   { static constexpr int numerator = Numerator, denominator = Denominator; };
template <int Numerator, int Denominator = 1> struct Epsilon     { static constexpr int numerator = Numerator, denominator = Denominator; };

struct SoftmaxThenTopK {};           ///< gates are probabilities over all experts (Switch)
struct TopKThenSoftmax {};           ///< gates are a softmax over the selected experts (Mixtral)
struct SigmoidThenTopK {};           ///< gates are sigmoids of the selected experts' logits (BlackMamba)
struct NormalisedGates {};           ///< SigmoidThenTopK's gates are divided by their sum over the selected experts (DeepSeek-V3)
struct RouterBias {};                ///< the router has a bias
struct SharedRouter {};              ///< one router for all projections of a Mamba block that have experts
struct SeparateRouters {};           ///< a router for each of them
struct JointFanIn {};                ///< initial weights of a router and its experts as in the code of MoE-Mamba
struct SelectionBias {};             ///< a bias that only selects experts, and follows their loads (loss-free balancing)
struct ProjectionBias {};            ///< the projections into and out of a Mamba block have biases
struct NoConvolutionBias {};         ///< the convolution of a Mamba block has none
struct NoGain {};                    ///< an RmsNorm without parameters
struct NoPositions {};               ///< attention without positional encoding
struct InputBiases {};               ///< attention with biases on queries, keys and values
struct Biases {};                    ///< … and on its output as well
struct TiedHead {};                  ///< the head shares the embedding's matrix
struct Head {};                      ///< the head has its own matrix
struct UnitFanIn {};                 ///< initial weights of embedding and head as in the code of MoE-Mamba
struct SumAuxiliaryLosses {};        ///< auxiliary losses of all layers are summed
struct AverageAuxiliaryLosses {};    ///< … and divided by the number of layers that have one
template <class Norm> struct PreNorm   { using norm = Norm; };  ///< before each layer of a body without Residual
template <class Norm> struct FinalNorm { using norm = Norm; };  ///< before the head
template <class Norm> struct InnerNorm { using norm = Norm; };  ///< of step, B and C inside a Mamba block
// clang-format on

/// TopK{3}, an object rather than an option: TopKSampling was meant. It converts to any type, so that no further errors
/// follow.
template <>
struct TopK<std::numeric_limits<int>::min()> {
  static constexpr int value = std::numeric_limits<int>::min();
  template <class... Numbers>
  constexpr explicit TopK(Numbers...) {
    static_assert(
        sizeof...(Numbers) == 0,
        "TopK<K> is an option of Moe and Mamba; to sample from the K most probable tokens, use TopKSampling{K}");
  }
  template <class T>
  constexpr operator T() const {
    return {};
  }
};
template <class... Numbers>
TopK(Numbers...) -> TopK<std::numeric_limits<int>::min()>;

namespace detail {

template <template <int> class Option, class T>
inline constexpr bool is_integer_option = false;
template <template <int> class Option, int N>
inline constexpr bool is_integer_option<Option, Option<N>> = true;

template <template <int, int> class Option, class T>
inline constexpr bool is_ratio_option = false;
template <template <int, int> class Option, int N, int D>
inline constexpr bool is_ratio_option<Option, Option<N, D>> = true;

template <template <class> class Option, class T>
inline constexpr bool is_norm_option = false;
template <template <class> class Option, class T>
inline constexpr bool is_norm_option<Option, Option<T>> = true;

/// Whether T is one of Types.
template <class T, class... Types>
inline constexpr bool is_one_of = (std::is_same_v<T, Types> || ...);

/// The value of the first Option among Options, else Default.
template <template <int> class Option, int Default, class... Options>
consteval int option_value() {
  int value = Default;
  [[maybe_unused]] bool found = false;
  (
      [&] {
        if constexpr (is_integer_option<Option, Options>) {
          if (!found) value = Options::value;
          found = true;
        }
      }(),
      ...);
  return value;
}

/// The first of Options for which Matches<Option>::value holds, else Default.
template <template <class> class Matches, class Default, class... Options>
struct FirstMatch {
  using type = Default;
};
template <template <class> class Matches, class Default, class First, class... Rest>
struct FirstMatch<Matches, Default, First, Rest...>
    : std::conditional_t<Matches<First>::value, std::type_identity<First>, FirstMatch<Matches, Default, Rest...>> {};

/// The ratio of the first Option among Options, else Default.
template <template <int, int> class Option, class... Options>
consteval Ratio option_ratio(Ratio otherwise) {
  [[maybe_unused]] bool found = false;
  (
      [&] {
        if constexpr (is_ratio_option<Option, Options>) {
          if (!found) otherwise = {Options::numerator, Options::denominator};
          found = true;
        }
      }(),
      ...);
  return otherwise;
}

// Checks. Each is a class template whose arguments are the layer and the values in question, so that every compiler
// shows them with the message.

template <class Layer, class Option, int Lowest, int Highest>
struct OptionInRange {
  static_assert(Option::value >= Lowest && Option::value <= Highest,
                "an option's value is out of range: OptionInRange<layer, option, lowest allowed, highest allowed>");
};

template <class Layer, class Option, int Lowest>
struct RatioInRange {
  static_assert(Option::numerator >= Lowest && Option::denominator >= 1,
                "an option's ratio is out of range; its denominator must be 1 or more and its numerator the lowest "
                "allowed or more: RatioInRange<layer, option, lowest numerator allowed>");
};

template <class Layer, class Option, int Times>
struct OptionGivenOnce {
  static_assert(Times <= 1, "an option is given more than once: OptionGivenOnce<layer, option, times given>");
};

/// How many times an option is given.
template <template <int> class Option, class... Arguments>
inline constexpr int times_given = (0 + ... + int(is_integer_option<Option, Arguments>));
template <template <int, int> class Option, class... Arguments>
inline constexpr int ratios_given = (0 + ... + int(is_ratio_option<Option, Arguments>));

/// Checks an integer option among Options: its range, and that it is given at most once. False if it is invalid: then
/// dependent checks are skipped, which would report the same mistake again.
template <class Layer, template <int> class Option, int Lowest, int Highest, class... Options>
consteval bool check_integer_option() {
  [[maybe_unused]] bool in_range = true;
  (
      [&] {
        if constexpr (is_integer_option<Option, Options>) {
          check<OptionInRange<Layer, Options, Lowest, Highest>>();
          in_range = in_range && Options::value >= Lowest && Options::value <= Highest;
        }
      }(),
      ...);
  // Only for the first one: the others are the same mistake.
  constexpr int times = times_given<Option, Options...>;
  if constexpr (times > 1) check<OptionGivenOnce<Layer, Option<option_value<Option, 0, Options...>()>, times>>();
  return in_range && times <= 1;
}

/// Checks a ratio option among Options: its range, and that it is given at most once.
template <class Layer, template <int, int> class Option, int Lowest, class... Options>
consteval void check_ratio_option() {
  (
      [] {
        if constexpr (is_ratio_option<Option, Options>) check<RatioInRange<Layer, Options, Lowest>>();
      }(),
      ...);
  constexpr int times = ratios_given<Option, Options...>;
  if constexpr (times > 1) {
    constexpr Ratio first = option_ratio<Option, Options...>({});
    check<OptionGivenOnce<Layer, Option<first.numerator, first.denominator>, times>>();
  }
}

}  // namespace detail
}  // namespace moe_mamba::inline v0_2
