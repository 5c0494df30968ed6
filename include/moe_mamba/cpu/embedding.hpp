#pragma once

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/ops/embedding.hpp"

/// Embedding of tokens on the CPU; the contract is in ops/embedding.hpp.
namespace moe_mamba::inline v0_2::cpu {

/// x[t] = weight[tokens[t]]
template <ComputeScalar C, StorageScalar S>
void embed(Device& device, const Token* tokens, MatrixView<const S> weight, MatrixView<C> x) {
  detail::for_rows(device, x.rows, x.columns, [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const S* from = weight.row(tokens[t]);
      C* to = x.row(t);
      detail::sweep<C>(x.columns, [=]<class P>(Index i) { store(to + i, load_widened<P>(from + i)); });
    }
  });
}

/// dweight[tokens[t]] += dx[t]. Each task owns a range of columns and goes through all tokens in order, so rows that
/// share a token are added in a fixed order without a lock.
template <ComputeScalar C>
void embed_backward(Device& device, const Token* tokens, Input<C> dx, MatrixView<C> dweight) {
  constexpr Index line = Arena::alignment / sizeof(C);
  const Index columns = ceiling_divide(ceiling_divide(dx.columns, device.threads()), line) * line;
  const detail::Chunks slices{dx.columns, std::max(columns, line)};
  device.parallel(slices.chunks(), [&](Index slice, int) {
    const Index first = slices.first(slice), count = slices.last(slice) - first;
    for (Index t = 0; t < dx.rows; ++t) {
      const C* from = dx.row(t) + first;
      C* to = dweight.row(tokens[t]) + first;
      detail::sweep<C>(count, [=]<class P>(Index i) { store(to + i, load<P>(to + i) + load<P>(from + i)); });
    }
  });
}

}  // namespace moe_mamba::inline v0_2::cpu
