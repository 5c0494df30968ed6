#pragma once

#include "moe_mamba/language/activation.hpp"
#include "moe_mamba/language/options.hpp"
#include "moe_mamba/layers/mlp.hpp"

/// Mlp<...>: its options, their checks, and the resulting layer.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class Layer, class Option>
struct MlpTakes {
  static_assert(is_integer_option<Hidden, Option> || ActivationType<Option>,
                "Mlp takes only the option Hidden<H> and an activation (Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu "
                "or your own with gated, value and derivative): MlpTakes<layer, option>");
};

template <class Layer, class... Options>
consteval bool check_mlp() {
  check<MlpTakes<Layer, Options>...>();
  check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
  check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
  return true;
}

}  // namespace detail

/// A dense feed-forward layer. Options: Hidden<4 · width>, an activation (Relu).
template <class... Options>
struct Mlp {
  static_assert(detail::check_mlp<Mlp, Options...>());

  static constexpr int hidden = detail::option_value<Hidden, 0, Options...>();  ///< 0: four times the width
  using activation = detail::activation_of<Options...>;

  template <int W>
  using Layer = MlpLayer<W, hidden == 0 ? 4 * W : hidden, activation>;
};

}  // namespace moe_mamba::inline v0_2
