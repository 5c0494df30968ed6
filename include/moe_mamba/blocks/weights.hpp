#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"

/// A layer's weights: one struct, `template <class Bind> struct Weights`, with a member for each parameter and a constructor
/// that asks the binder for them in the order in which they lie in memory. It is built in three ways:
///
///   DescribeWeights          at compile time: names, shapes, initialisers and offsets
///   BindWeights<const S>     views of the parameters
///   BindWeights<C>           views of the gradients with respect to them
///
/// so that no shape is written twice and no offset at all. A binder has
///
///   matrix(name, rows, columns, initializer, kind)   (rows, columns)
///   stack(name, count, rows, columns, initializer)   (count, rows, columns)
///   vector(name, size, kind, initializer)            (size)
///   vector_if(present, name, size, kind, initializer)   the same, or null where the layer goes without it
///   layer<Layer>(prefix)                         the weights of a layer inside the layer
namespace moe_mamba {

/// Lists parameters, or only counts them where there is no room to list them in.
class DescribeWeights {
 public:
  struct Nothing {};
  using Matrix = Nothing;
  using Stack = Nothing;
  using Vector = Nothing;

  constexpr explicit DescribeWeights(std::span<Parameter> list = {}) : list_(list) {}

  constexpr Matrix matrix(const char* name, Index rows, Index columns, Initializer initializer,
                          ParameterKind kind = ParameterKind::matrix) {
    return add(matrix_parameter(name, rows, columns, initializer, kind));
  }
  constexpr Stack stack(const char* name, Index count, Index rows, Index columns, Initializer initializer,
                        GradientStart start = GradientStart::zero) {
    Parameter parameter = stack_parameter(name, count, rows, columns, initializer);
    parameter.gradient_start = start;
    return add(parameter);
  }
  constexpr Vector vector(const char* name, Index size, ParameterKind kind, Initializer initializer) {
    return add(vector_parameter(name, size, kind, initializer));
  }
  constexpr Vector vector_if(bool present, const char* name, Index size, ParameterKind kind, Initializer initializer) {
    return present ? vector(name, size, kind, initializer) : Nothing{};
  }
  template <class Layer>
  constexpr typename Layer::template Weights<DescribeWeights> layer(const char* prefix) {
    const ParameterName outer = prefix_;
    prefix_.append(prefix);
    const typename Layer::template Weights<DescribeWeights> weights(*this);
    prefix_ = outer;
    return weights;
  }

  constexpr std::size_t count() const { return count_; }

 private:
  constexpr Nothing add(Parameter parameter) {
    if (count_ < list_.size()) {
      ParameterName name = prefix_;
      parameter.name = name.append(parameter.name.view());
      parameter.offset = offset_;
      list_[count_] = parameter;
    }
    ++count_;
    offset_ += parameter.size();
    return {};
  }

  std::span<Parameter> list_;
  std::size_t count_ = 0;
  Index offset_ = 0;
  ParameterName prefix_;
};

/// Hands out views of elements of T, one behind the other.
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
  template <class Layer>
  constexpr typename Layer::template Weights<BindWeights> layer(const char*) {
    return typename Layer::template Weights<BindWeights>(*this);
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

template <class Layer>
consteval std::size_t parameter_count() {
  DescribeWeights counting;
  (void)typename Layer::template Weights<DescribeWeights>(counting);
  return counting.count();
}

}  // namespace detail

/// The parameters of a layer, laid one behind the other without gaps.
template <class Layer>
inline constexpr auto layer_parameters = [] {
  std::array<Parameter, detail::parameter_count<Layer>()> list{};
  DescribeWeights describe(list);
  (void)typename Layer::template Weights<DescribeWeights>(describe);
  return list;
}();

/// Elements of a layer's parameters.
template <class Layer>
inline constexpr Index parameters_of = total_size(layer_parameters<Layer>);

/// The weights of a layer, or gradients with respect to them, which begin at `first`.
template <class Layer, class T>
constexpr typename Layer::template Weights<BindWeights<T>> bind_weights(T* first) {
  BindWeights<T> bind(first);
  return typename Layer::template Weights<BindWeights<T>>(bind);
}

}  // namespace moe_mamba
