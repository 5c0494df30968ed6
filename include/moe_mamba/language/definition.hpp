#pragma once

#include <concepts>
#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/static_check.hpp"

/// Concepts for definitions of layers and norms.
namespace moe_mamba::inline v0_2 {

namespace detail {

/// Replaces an invalid layer after a check has reported it.
struct NoLayer : LayerDefaults {
  static constexpr Index active_parameters = 0;
  static constexpr double flops_per_token = 0;
};

template <class Layer>
struct FinishedLayer {
  static_assert(LayerType<Layer>, "a layer does not meet the requirements of blocks/layer.hpp: FinishedLayer<layer>");
};

/// The layer, if it is one.
template <class Layer>
struct CheckedLayer {
  static_assert((check<FinishedLayer<Layer>>(), true));
  using type = std::conditional_t<LayerType<Layer>, Layer, NoLayer>;
};

}  // namespace detail

/// A definition of a norm: like that of a layer, with `is_norm`.
template <class T>
concept NormDefinition = requires {
  { T::is_norm } -> std::convertible_to<bool>;
  typename T::template Layer<1>;
};

/// A definition of a layer: its member template Layer<Width> is the layer.
template <class T, int Width>
concept LayerDefinition = requires {
  typename T::template Layer<Width>;
}
&&!NormDefinition<T>;

}  // namespace moe_mamba::inline v0_2
