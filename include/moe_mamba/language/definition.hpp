#pragma once

#include <concepts>
#include <type_traits>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/static_check.hpp"

/// What a definition of a layer or norm is.
namespace moe_mamba {

namespace detail {

/// Stands where something else than a layer was given, once a check has said so.
struct NoLayer : LayerDefaults {
  static constexpr Index active_parameters = 0;
  static constexpr double flops_per_token = 0;
};

template <class Layer>
struct FinishedLayer {
  static_assert(LayerType<Layer>, "a layer lacks something that blocks/layer.hpp asks for: FinishedLayer<layer>");
};

/// The layer, if it is one.
template <class Layer>
struct CheckedLayer {
  static_assert((check<FinishedLayer<Layer>>(), true));
  using type = std::conditional_t<LayerType<Layer>, Layer, NoLayer>;
};

}  // namespace detail

/// A definition of a norm: like that of a layer, and it says so.
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

}  // namespace moe_mamba
