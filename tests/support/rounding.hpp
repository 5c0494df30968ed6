#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "moe_mamba/ops/cross_entropy.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/reference.hpp"

/// The reference backend as a device works with bfloat16 parameters: activations between operations are bfloat16, and
/// the other operand of products with weights is rounded to it, as tensor cores require. Sums stay exact. Its error
/// relative to the reference determines the tolerance for a device.
namespace test::rounding {

using namespace moe_mamba;

struct Device : reference::Device {
  template <class S>
  using Activation = S;
};

/// A matrix rounded to S.
template <class S, class X>
class Rounded {
  using C = std::remove_const_t<X>;

 public:
  explicit Rounded(MatrixView<X> from) : rows_(from.rows), columns_(from.columns) {
    for (Index t = 0; t < rows_; ++t) {
      for (Index i = 0; i < columns_; ++i)
        values_.push_back(static_cast<C>(static_cast<S>(static_cast<double>(from(t, i)))));
    }
  }
  MatrixView<const C> view() const { return {values_.data(), rows_, columns_, columns_}; }

 private:
  Index rows_, columns_;
  std::vector<C> values_;
};

template <class X, class C, class S>
void linear(Device& device, MatrixView<X> x, MatrixView<const S> weight, MatrixView<C> y) {
  reference::linear(device, Rounded<S, X>(x).view(), weight, y);
}
template <class Y, class C, class S>
void linear_backward_input(Device& device, MatrixView<Y> dy, MatrixView<const S> weight, MatrixView<C> dx, Into into) {
  reference::linear_backward_input(device, Rounded<S, Y>(dy).view(), weight, dx, into);
}
template <class S, class Y, class X, class C>
void linear_backward_weight(Device& device, MatrixView<Y> dy, MatrixView<X> x, MatrixView<C> dweight) {
  reference::linear_backward_weight<S>(device, Rounded<S, Y>(dy).view(), Rounded<S, X>(x).view(), dweight);
}

template <class C, class S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  const Index tokens = head.x.rows, vocabulary = head.weight.rows;
  using T = compute_t<C>;
  std::vector<T> values(static_cast<std::size_t>(tokens * vocabulary));
  const auto logits = matrix(values.data(), tokens, vocabulary);
  const bool gradients = head.dx.data != nullptr;
  linear(device, head.x, head.weight, logits);  // small logits: no exponential overflows
  double loss = 0, targets = 0;
  for (Index t = 0; t < tokens; ++t) targets += head.targets[t] == masked_target ? 0 : 1;
  for (Index t = 0; t < tokens; ++t) {
    const bool masked = head.targets[t] == masked_target;
    double sum = 0;
    for (Index v = 0; v < vocabulary; ++v) sum += std::exp(double(logits(t, v)));
    if (!masked) loss += std::log(sum) - double(logits(t, head.targets[t]));
    for (Index v = 0; v < vocabulary; ++v) {
      const double share = std::exp(double(logits(t, v))) / sum - (v == head.targets[t] ? 1 : 0);
      logits(t, v) = masked ? T(0) : T(share / std::max(targets, 1.0));
    }
  }
  head.totals[0] = loss;
  head.totals[1] = targets;
  if (!gradients) return;
  linear_backward_input(device, logits, head.weight, head.dx, Into::assign);
  linear_backward_weight<S>(device, logits, head.x, head.dweight);
}

}  // namespace test::rounding
