#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/embedding.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/embedding.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class C, class S>
void embed(Device&, const Token* tokens, MatrixView<const S> weight, MatrixView<C> x) {
  for (Index t = 0; t < x.rows; ++t) {
    for (Index i = 0; i < x.columns; ++i) x(t, i) = C(double(weight(tokens[t], i)));
  }
}

template <class C>
void embed_backward(Device&, const Token* tokens, Input<C> dx, MatrixView<C> dweight) {
  for (Index t = 0; t < dx.rows; ++t) {
    for (Index i = 0; i < dx.columns; ++i) dweight(tokens[t], i) += dx(t, i);
  }
}

}  // namespace moe_mamba::inline v0_2::reference
