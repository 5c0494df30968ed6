#pragma once

#include <concepts>

#include "moe_mamba/language/options.hpp"
#include "moe_mamba/ops/activation.hpp"

/// The activation among a layer's options.
namespace moe_mamba::inline v0_2::detail {

/// An activation: `gated`, `value` and `derivative`. The library's are in ops/activation.hpp.
template <class T>
concept ActivationType = requires(float x) {
  { T::gated } -> std::convertible_to<bool>;
  { T::value(x) } -> std::convertible_to<float>;
  { T::derivative(x) } -> std::convertible_to<float>;
};

template <class T>
struct IsActivation {
  static constexpr bool value = ActivationType<T>;
};

/// The activation among Options, Relu if there is none.
template <class... Options>
using activation_of = typename FirstMatch<IsActivation, Relu, Options...>::type;

template <class Layer, int Activations>
struct OneActivation {
  static_assert(Activations <= 1, "more than one activation is given: OneActivation<layer, activations given>");
};

}  // namespace moe_mamba::inline v0_2::detail
