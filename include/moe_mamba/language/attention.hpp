#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/language/options.hpp"
#include "moe_mamba/layers/attention.hpp"

/// Attention<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Layer, class Option>
struct AttentionTakes {
  static_assert(is_integer_option<Heads, Option> || is_integer_option<KeyValueHeads, Option> ||
                    is_integer_option<HeadWidth, Option> || is_integer_option<Context, Option> ||
                    is_integer_option<Rotary, Option> || is_integer_option<RotaryWidth, Option> ||
                    is_one_of<Option, NoPositions, InputBiases, Biases>,
                "Attention takes only the options Heads<H>, KeyValueHeads<G>, HeadWidth<d>, Context<N>, Rotary<base> "
                "and RotaryWidth<R> or NoPositions, and InputBiases or Biases: AttentionTakes<layer, option>");
};

template <class Layer, class Required, int Times>
struct AttentionNeeds {
  static_assert(Times >= 1,
                "Attention needs the options Heads<H> and Context<N>, the number of last positions that a step attends "
                "to: AttentionNeeds<layer, option with an example value, times given>");
};

template <class Layer, int Times>
struct OneKindOfPositions {
  static_assert(Times <= 1,
                "Attention: NoPositions may be given at most once, and not with Rotary<base> or RotaryWidth<R>: "
                "OneKindOfPositions<layer, times given>");
};

template <class Layer, int Times>
struct OneKindOfBiases {
  static_assert(Times <= 1,
                "Attention: InputBiases and Biases exclude each other, and each may be given at most once: "
                "OneKindOfBiases<layer, times given>");
};

template <class Layer, class Queries, class KeyValues>
struct AttentionGroups {
  static_assert(Queries::value % KeyValues::value == 0,
                "Attention: KeyValueHeads must divide Heads: AttentionGroups<layer, Heads, KeyValueHeads>");
};

template <class Layer, class Model, class Queries>
struct AttentionHeadWidth {
  static_assert(Model::value % Queries::value == 0,
                "Attention: without HeadWidth<d> the width of a head is the model's Width / Heads, so Heads must "
                "divide Width: AttentionHeadWidth<layer, Width, Heads>");
  static_assert(
      Model::value / Queries::value <= 256,
      "Attention: without HeadWidth<d> the width of a head is the model's Width / Heads, which must be 256 or "
      "less: AttentionHeadWidth<layer, Width, Heads>");
};

template <class Layer, class Rotated, class Head>
struct AttentionRotary {
  static_assert(Rotated::value % 2 == 0 && Rotated::value <= Head::value,
                "Attention: rotary positions rotate pairs of components, so RotaryWidth (by default the width of a "
                "head) must be even and at most the width of a head; NoPositions has no such limit: "
                "AttentionRotary<layer, RotaryWidth, HeadWidth>");
};

/// Whether heads and their widths are in range, a precondition of the checks that depend on the model's width.
template <class Layer, class... Options>
consteval bool check_attention_sizes() {
  const bool heads = check_integer_option<Layer, Heads, 1, 1024, Options...>();
  const bool width = check_integer_option<Layer, HeadWidth, 1, 256, Options...>();
  const bool rotary = check_integer_option<Layer, RotaryWidth, 2, 256, Options...>();
  return heads && width && rotary;
}

template <class Layer, class... Options>
consteval bool check_attention() {
  check<AttentionTakes<Layer, Options>...>();
  check<AttentionNeeds<Layer, Heads<8>, times_given<Heads, Options...>>>();
  check<AttentionNeeds<Layer, Context<2048>, times_given<Context, Options...>>>();
  constexpr bool sizes_are_right = check_attention_sizes<Layer, Options...>();
  constexpr bool groups_are_right = check_integer_option<Layer, KeyValueHeads, 1, 1024, Options...>();
  check_integer_option<Layer, Context, 1, 1 << 24, Options...>();
  check_integer_option<Layer, Rotary, 2, 1 << 30, Options...>();
  constexpr int heads = option_value<Heads, 0, Options...>();
  if constexpr (sizes_are_right && groups_are_right && heads > 0) {
    check<AttentionGroups<Layer, Heads<heads>, KeyValueHeads<option_value<KeyValueHeads, heads, Options...>()>>>();
  }
  constexpr int without = (0 + ... + int(is_one_of<Options, NoPositions>));
  constexpr int rotary = times_given<Rotary, Options...> + times_given<RotaryWidth, Options...>;
  check<OneKindOfPositions<Layer, without + (without > 0 && rotary > 0 ? 1 : 0)>>();
  check<OneKindOfBiases<Layer, (0 + ... + int(is_one_of<Options, InputBiases, Biases>))>>();
  return true;
}

/// The checks that depend on the model's width as well.
template <class Layer, int W, class... Options>
consteval bool check_attention_of_width() {
  constexpr AttentionOptions options = Layer::options;
  if constexpr (check_attention_sizes<Layer, Options...>()) {
    if constexpr (options.head_width == 0) check<AttentionHeadWidth<Layer, Width<W>, Heads<options.heads>>>();
    constexpr AttentionOptions all = options.of_width(W);
    // Without a valid head width this would report the same mistake a second time.
    if constexpr (options.positions && (options.head_width != 0 || W % options.heads == 0)) {
      check<AttentionRotary<Layer, RotaryWidth<all.rotary_width>, HeadWidth<all.head_width>>>();
    }
  }
  return true;
}

template <class T>
constexpr void set(AttentionOptions&, std::type_identity<T>) {}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<Heads<N>>) {
  options.heads = std::max(1, N);
}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<KeyValueHeads<N>>) {
  options.key_value_heads = N;
}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<HeadWidth<N>>) {
  options.head_width = N;
}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<Context<N>>) {
  options.context = N;
}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<Rotary<N>>) {
  options.rotary_base = N;
}
template <int N>
constexpr void set(AttentionOptions& options, std::type_identity<RotaryWidth<N>>) {
  options.rotary_width = N;
}
constexpr void set(AttentionOptions& options, std::type_identity<NoPositions>) { options.positions = false; }
constexpr void set(AttentionOptions& options, std::type_identity<InputBiases>) {
  options.biases = AttentionBiases::input;
}
constexpr void set(AttentionOptions& options, std::type_identity<Biases>) { options.biases = AttentionBiases::all; }

/// The layer, after its options have been checked with the width.
template <class Definition, int W, class... Options>
struct AttentionOf {
  static_assert(check_attention_of_width<Definition, W, Options...>());
  using type = AttentionLayer<W, Definition::options.of_width(W)>;
};

}  // namespace detail

/// Causal attention. Options: Heads<H> and Context<N> (required), KeyValueHeads<H>, HeadWidth<width / H>,
/// Rotary<10000>, RotaryWidth<HeadWidth> (or NoPositions), InputBiases or Biases (none). Context is the number of last
/// positions that a step attends to, its own included, and that the running state caches.
template <class... Options>
struct Attention {
  static_assert(detail::check_attention<Attention, Options...>());

  static constexpr AttentionOptions options = [] {
    AttentionOptions all;
    (detail::set(all, std::type_identity<Options>{}), ...);
    return all;
  }();

  template <int W>
  using Layer = typename detail::AttentionOf<Attention, W, Options...>::type;
};

}  // namespace moe_mamba::inline v0_2
