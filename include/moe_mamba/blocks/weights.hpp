#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <string_view>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/static_check.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"

/// A layer's weights: one struct, `template <class Bind> struct Weights`, with a member for each parameter and a
/// constructor that requests them from the binder in memory order, under unique names. It is instantiated in three
/// ways:
///
///   DescribeWeights          at compile time: names, shapes, initialisers and offsets
///   BindWeights<const S>     views of the parameters
///   BindWeights<C>           views of the gradients with respect to them
///
/// so every shape is written once, and no offset at all. A binder has
///
///   matrix(name, rows, columns, initializer, kind)      (rows, columns)
///   stack(name, count, rows, columns, initializer)      (count, rows, columns)
///   vector(name, size, kind, initializer)               (size)
///   vector_if(present, name, size, kind, initializer)   the same, or null if the layer does not have it
///   block<Block>(prefix, arguments...)                  the weights of a block or layer inside the layer, whose
///                                                       constructor is given the binder and these arguments
namespace moe_mamba::inline v0_2 {

namespace detail {

/// The value at which counts of a definition saturate, so that a too large one can be reported (NumberOfParameters).
inline constexpr Index most_counted = Index{1} << 60;

constexpr Index capped_sum(std::initializer_list<Index> counts) {
  Index sum = 0;
  for (const Index count : counts) sum = std::min(most_counted, sum + std::min(most_counted, count));
  return sum;
}
/// 0 if a count is negative: then an option is out of range, which its own check reports.
constexpr Index capped_product(std::initializer_list<Index> counts) {
  Index product = 1;
  for (const Index count : counts) {
    if (count <= 0) return 0;
    product = product > most_counted / count ? most_counted : product * count;
  }
  return product;
}

}  // namespace detail

/// Lists parameters, or only counts them if there is no array to list them in.
class DescribeWeights {
 public:
  struct Nothing {};
  using Matrix = Nothing;
  using Stack = Nothing;
  using Vector = Nothing;

  constexpr explicit DescribeWeights(std::span<Parameter> list = {}) : list_(list) {}

  constexpr Matrix matrix(const char* name, Index rows, Index columns, Initializer initializer,
                          ParameterKind kind = ParameterKind::matrix) {
    return add(name, {rows, columns, 1}, 2, kind, initializer);
  }
  constexpr Stack stack(const char* name, Index count, Index rows, Index columns, Initializer initializer,
                        GradientStart start = GradientStart::zero) {
    return add(name, {count, rows, columns}, 3, ParameterKind::matrix, initializer, start);
  }
  constexpr Vector vector(const char* name, Index size, ParameterKind kind, Initializer initializer) {
    return add(name, {size, 1, 1}, 1, kind, initializer);
  }
  constexpr Vector vector_if(bool present, const char* name, Index size, ParameterKind kind, Initializer initializer) {
    return present ? vector(name, size, kind, initializer) : Nothing{};
  }
  template <class Block, class... Arguments>
  constexpr typename Block::template Weights<DescribeWeights> block(const char* prefix, const Arguments&... arguments) {
    if (list_.empty()) return typename Block::template Weights<DescribeWeights>(*this, arguments...);
    const ParameterName outer = prefix_;
    prefix_.append(prefix);
    const typename Block::template Weights<DescribeWeights> weights(*this, arguments...);
    prefix_ = outer;
    return weights;
  }

  constexpr std::size_t count() const { return count_; }
  /// The number of elements of all parameters.
  constexpr Index size() const { return size_; }

 private:
  constexpr Nothing add(const char* name, const std::array<Index, 3>& shape, int rank, ParameterKind kind,
                        const Initializer& initializer, GradientStart start = GradientStart::zero) {
    if (count_ < list_.size()) {
      ParameterName full = prefix_;
      list_[count_] = {full.append(name), shape, rank, kind, initializer, size_, start};
    }
    ++count_;
    size_ = detail::capped_sum({size_, detail::capped_product({shape[0], shape[1], shape[2]})});
    return {};
  }

  std::span<Parameter> list_;
  std::size_t count_ = 0;
  Index size_ = 0;
  ParameterName prefix_;
};

/// Hands out views of consecutive elements of T.
template <class T>
class BindWeights {
 public:
  using Matrix = MatrixView<T>;
  using Stack = MatrixStack<T>;
  using Vector = T*;

  constexpr explicit BindWeights(T* first) : next_(first) {}

  constexpr Matrix matrix(const char*, Index rows, Index columns, Initializer, ParameterKind = ParameterKind::matrix) {
    return moe_mamba::matrix(take(rows * columns), rows, columns);
  }
  constexpr Stack stack(const char*, Index count, Index rows, Index columns, Initializer,
                        GradientStart = GradientStart::zero) {
    return {take(count * rows * columns), rows, columns};
  }
  constexpr Vector vector(const char*, Index size, ParameterKind, Initializer) { return take(size); }
  constexpr Vector vector_if(bool present, const char*, Index size, ParameterKind, Initializer) {
    return present ? take(size) : nullptr;
  }
  template <class Block, class... Arguments>
  constexpr typename Block::template Weights<BindWeights> block(const char*, const Arguments&... arguments) {
    return typename Block::template Weights<BindWeights>(*this, arguments...);
  }

 private:
  constexpr T* take(Index count) {
    T* const taken = next_;
    next_ += count;
    return taken;
  }

  T* next_;
};

/// The weights of a layer that has none.
struct NoWeights {
  template <class Bind>
  constexpr explicit NoWeights(Bind&) {}
};

namespace detail {

/// The parameters of a layer, counted.
template <class Layer>
inline constexpr DescribeWeights counted_weights = [] {
  DescribeWeights counting;
  (void)typename Layer::template Weights<DescribeWeights>(counting);
  return counting;
}();

/// The parameters of a layer, listed.
template <class Layer>
inline constexpr auto listed_weights = [] {
  std::array<Parameter, counted_weights<Layer>.count()> list{};
  DescribeWeights describe(list);
  (void)typename Layer::template Weights<DescribeWeights>(describe);
  return list;
}();

/// A name that compilers show in their errors; "" for none.
struct ShownName {
  char text[ParameterName::capacity + 1] = {};
};

/// The first parameter name of a layer that an earlier parameter has already.
template <class Layer>
constexpr ShownName repeated_name() {
  const auto& list = listed_weights<Layer>;
  ShownName shown;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string_view name = list[i].name.view();
    for (std::size_t before = 0; before < i; ++before) {
      if (list[before].name.view() != name) continue;
      std::copy(name.begin(), name.end(), shown.text);
      if (name.empty()) shown.text[0] = '?';  // two parameters without a name
      return shown;
    }
  }
  return shown;
}

template <class Layer, ShownName Name>
struct NamesOfParameters {
  static_assert(Name.text[0] == '\0',
                "two parameters of a layer have one name, by which files know them: give each parameter in the layer's "
                "Weights another name, and each block another prefix: NamesOfParameters<layer, the name>");
};

}  // namespace detail

/// The number of elements of a layer's parameters.
template <class Layer>
inline constexpr Index parameters_of = detail::counted_weights<Layer>.size();

/// The parameters of a layer, which are contiguous.
template <class Layer>
inline constexpr auto layer_parameters = [] {
  detail::check<detail::NamesOfParameters<Layer, detail::repeated_name<Layer>()>>();
  return detail::listed_weights<Layer>;
}();

/// The weights of a layer, or the gradients with respect to them, in the array at `first`.
template <class Layer, class T>
constexpr typename Layer::template Weights<BindWeights<T>> bind_weights(T* first) {
  BindWeights<T> bind(first);
  return typename Layer::template Weights<BindWeights<T>>(bind);
}

}  // namespace moe_mamba::inline v0_2
