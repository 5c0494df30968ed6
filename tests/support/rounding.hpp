#pragma once

#include <type_traits>
#include <vector>

#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/reference.hpp"

/// The reference backend, but for products with bfloat16 weights, whose other factor is rounded to bfloat16: what a
/// device's tensor cores multiply. Sums stay exact. How far it is from the reference tells how far a device may be.
namespace test::rounding {

using namespace moe_mamba;

struct Device : reference::Device {};

/// A matrix as S holds it.
template <class S, class C>
class Rounded {
 public:
  explicit Rounded(MatrixView<const C> from) : rows_(from.rows), columns_(from.columns) {
    for (Index t = 0; t < rows_; ++t) {
      for (Index i = 0; i < columns_; ++i) values_.push_back(static_cast<C>(S(from(t, i))));
    }
  }
  MatrixView<const C> view() const { return {values_.data(), rows_, columns_, columns_}; }

 private:
  Index rows_, columns_;
  std::vector<C> values_;
};

template <class C, class S>
void linear(Device& device, Input<C> x, MatrixView<const S> weight, MatrixView<C> y) {
  reference::linear<C, S>(device, Rounded<S, C>(x).view(), weight, y);
}
template <class C, class S>
void linear_backward_input(Device& device, Input<C> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  reference::linear_backward_input<C, S>(device, Rounded<S, C>(dy).view(), weight, dx, into);
}
template <class S, class C>
void linear_backward_weight(Device& device, Input<C> dy, Input<C> x, MatrixView<C> dweight) {
  reference::linear_backward_weight<S, C>(device, Rounded<S, C>(dy).view(), Rounded<S, C>(x).view(), dweight);
}
template <class C, class S>
void grouped_linear(Device& device, Groups groups, Input<C> x, MatrixStack<const S> weight, MatrixView<C> y) {
  reference::grouped_linear<C, S>(device, groups, Rounded<S, C>(x).view(), weight, y);
}
template <class C, class S>
void grouped_linear_backward_input(Device& device, Groups groups, Input<C> dy, MatrixStack<const S> weight,
                                   MatrixView<C> dx, Into into) {
  reference::grouped_linear_backward_input<C, S>(device, groups, Rounded<S, C>(dy).view(), weight, dx, into);
}
template <class S, class C>
void grouped_linear_backward_weight(Device& device, Groups groups, Input<C> dy, Input<C> x, MatrixStack<C> dweight) {
  reference::grouped_linear_backward_weight<S, C>(device, groups, Rounded<S, C>(dy).view(), Rounded<S, C>(x).view(),
                                                  dweight);
}

}  // namespace test::rounding
