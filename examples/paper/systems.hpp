#pragma once

#include <type_traits>

#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "size.hpp"

/// The systems that the paper compares (Pióro et al. 2024, arXiv 2401.04081, section 4), at any size. The hidden width of
/// experts and multilayer perceptrons is chosen by the size's budget of active parameters.
namespace paper {

/// Mamba and a switch layer by turns: MoE-Mamba. One expert is Mamba-MLP in other words.
template <class Size, Index ExpertCount>
struct MoeMamba {
  template <Index H>
  using With = typename Size::template Net<Mamba<>, Moe<Experts<ExpertCount>, Hidden<H>>>;
};

/// Mamba and a dense multilayer perceptron by turns.
template <class Size>
struct MambaMlp {
  template <Index H>
  using With = typename Size::template Net<Mamba<>, Mlp<Hidden<H>>>;
};

/// Both layers of a block read the same input.
template <class Size, Index ExpertCount>
struct ParallelMoeMamba {
  template <Index H>
  using With = typename Size::template Net<Parallel<Mamba<>, Moe<Experts<ExpertCount>, Hidden<H>>>>;
};

/// Heads of 8 numbers in small models, of 32 in larger ones; rotary positions. A step attends to the last N.
template <class Size, Index N>
using PaperAttention = Attention<Heads<Size::width / (Size::width < 64 ? 8 : 32)>, Context<N>>;

template <class Size, Index N>
struct Transformer {
  template <Index H>
  using With = typename Size::template Net<PaperAttention<Size, N>, Mlp<Hidden<H>>>;
};

template <class Size, Index N, Index ExpertCount>
struct TransformerMoe {
  template <Index H>
  using With = typename Size::template Net<PaperAttention<Size, N>, Moe<Experts<ExpertCount>, Hidden<H>>>;
};

/// MoE-Mamba with other shares of the active parameters: its Mamba layers have E inner channels.
template <class Size, Index E, Index ExpertCount>
struct MambaShare {
  template <Index H>
  using With = typename Size::template Net<Mamba<Inner<E>>, Moe<Experts<ExpertCount>, Hidden<H>>>;
};

/// Experts in place of projections inside Mamba, in every layer or (`Half`) in every other one. The inner width, that of all
/// layers, makes up for the routers.
template <class Size, bool Half, class... Options>
struct InnerExperts {
  template <Index E>
  using Layer = Mamba<Inner<E>, Options...>;
  template <Index E>
  using With = std::conditional_t<Half, typename Size::template Net<Mamba<Inner<E>>, Layer<E>>,
                                  typename Size::template Net<Layer<E>, Layer<E>>>;
};

/// The form of Routing Mamba (Zhan et al. 2025, arXiv 2506.18145): linear experts, one router a layer.
template <class Size, bool Half, class... Experts>
using RoutedMamba = InnerExperts<Size, Half, Experts...>;

/// The form of the paper's code: two matrices with ReLU between them that have together as many parameters as the projection
/// in place of which they are, a router each, limited capacity.
template <class Size, bool Half, class... Experts>
using InnerMoe = InnerExperts<Size, Half, SeparateRouters, Hidden<(2 * Size::width + 2) / 3>, Capacity<1>, Experts...>;

/// A MoE-Mamba of as many parameters in all as plain Mamba: what its experts cost in memory is taken from their width.
template <class Size, Index ExpertCount>
using TotalControl =
    typename MoeMamba<Size, ExpertCount>::template With<widest<MoeMamba<Size, ExpertCount>, 8, true>(Size::budget)>;

}  // namespace paper
