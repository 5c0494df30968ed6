#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/dispatch.hpp"
#include "moe_mamba/reference/device.hpp"
#include "moe_mamba/reference/linear.hpp"

/// The reference of ops/dispatch.hpp.
namespace moe_mamba::inline v0_2::reference {

inline void group_tokens(Device&, const GroupTokens& group) {
  Index row = 0, dropped = 0;
  for (Index e = 0; e < group.expert_count; ++e) {
    group.offsets[e] = row;
    for (Index assignment = 0; assignment < group.tokens * group.top_k; ++assignment) {
      if (group.experts[assignment] != e) continue;
      if (row - group.offsets[e] < group.capacity) {
        group.source[row] = assignment / group.top_k;
        group.slots[assignment] = row++;
      } else {
        group.slots[assignment] = -1;
        ++dropped;
      }
    }
  }
  group.offsets[group.expert_count] = row;
  *group.dropped = double(dropped);
}

template <class C>
void gather_rows(Device&, Groups groups, Input<C> x, const Index* source, MatrixView<C> y) {
  for (Index s = 0; s < groups.offsets[groups.count]; ++s) {
    for (Index i = 0; i < x.columns; ++i) y(s, i) = x(source[s], i);
  }
}

template <class C>
void combine_rows(Device&, Input<C> y, const Index* slots, Index top_k, const compute_t<C>* gates, MatrixView<C> out,
                  Into into) {
  for (Index t = 0; t < out.rows; ++t) {
    for (Index i = 0; i < out.columns; ++i) {
      double sum = into == Into::add ? double(out(t, i)) : 0.0;
      for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
        if (slots[a] >= 0) sum += (gates == nullptr ? 1.0 : double(gates[a])) * double(y(slots[a], i));
      }
      out(t, i) = C(sum);
    }
  }
}

template <class C>
void combine_rows_backward(Device&, Input<C> y, const Index* slots, Index top_k, const compute_t<C>* gates,
                           Input<C> dout, MatrixView<C> dy, compute_t<C>* dgates) {
  for (Index t = 0; t < dout.rows; ++t) {
    for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
      double dot = 0;
      if (slots[a] >= 0) {
        for (Index i = 0; i < dout.columns; ++i) {
          dot += double(dout(t, i)) * double(y(slots[a], i));
          dy(slots[a], i) = C((gates == nullptr ? 1.0 : double(gates[a])) * double(dout(t, i)));
        }
      }
      if (dgates != nullptr) dgates[a] = compute_t<C>(dot);
    }
  }
}

}  // namespace moe_mamba::inline v0_2::reference
