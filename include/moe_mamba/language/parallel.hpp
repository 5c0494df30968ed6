#pragma once

#include "moe_mamba/language/definition.hpp"
#include "moe_mamba/layers/parallel.hpp"

/// Parallel<A, B>: two layers combined into one.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <class First, class Second, int W>
struct ParallelTakes {
  static_assert(LayerDefinition<First, W> && LayerDefinition<Second, W>,
                "Parallel<A, B> takes two layers (Mamba, Attention, Moe, Mlp, Parallel or your own), not norms, "
                "options or groups: ParallelTakes<A, B, width>");
};

template <class First, class Second, int W>
struct ParallelOf {
  static_assert((check<ParallelTakes<First, Second, W>>(), true));
  using type = NoLayer;
};

template <class First, class Second, int W>
requires(LayerDefinition<First, W>&& LayerDefinition<Second, W>) struct ParallelOf<First, Second, W> {
  using type = ParallelLayer<W, typename CheckedLayer<typename First::template Layer<W>>::type,
                             typename CheckedLayer<typename Second::template Layer<W>>::type>;
};

}  // namespace detail

/// Two layers with the same normalised input, whose outputs are added.
template <class First, class Second>
struct Parallel {
  template <int W>
  using Layer = typename detail::ParallelOf<First, Second, W>::type;
};

}  // namespace moe_mamba::inline v0_2
