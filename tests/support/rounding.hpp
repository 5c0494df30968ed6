#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "moe_mamba/ops/cross_entropy.hpp"
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

template <class C, class S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  const Index tokens = head.x.rows, vocabulary = head.weight.rows;
  std::vector<C> values(static_cast<std::size_t>(tokens * vocabulary));
  const auto logits = matrix(values.data(), tokens, vocabulary);
  const bool gradients = head.dx.data != nullptr;
  linear<C, S>(device, head.x, head.weight, logits);  // of a few units: no exponential overflows
  double loss = 0, targets = 0;
  for (Index t = 0; t < tokens; ++t) targets += head.targets[t] == masked_target ? 0 : 1;
  for (Index t = 0; t < tokens; ++t) {
    const bool masked = head.targets[t] == masked_target;
    double sum = 0;
    for (Index v = 0; v < vocabulary; ++v) sum += std::exp(double(logits(t, v)));
    if (!masked) loss += std::log(sum) - double(logits(t, head.targets[t]));
    for (Index v = 0; v < vocabulary; ++v) {
      const double share = std::exp(double(logits(t, v))) / sum - (v == head.targets[t] ? 1 : 0);
      logits(t, v) = masked ? C(0) : C(share / std::max(targets, 1.0));
    }
  }
  head.totals[0] = loss;
  head.totals[1] = targets;
  if (!gradients) return;
  linear_backward_input<C, S>(device, logits, head.weight, head.dx, Into::assign);
  linear_backward_weight<S, C>(device, logits, head.x, head.dweight);
}

}  // namespace test::rounding
