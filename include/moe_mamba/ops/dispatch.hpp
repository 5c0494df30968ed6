#pragma once

#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/reference.hpp"

/// Bringing the tokens of one expert together and their results back.
///
///   group_tokens(device, GroupTokens{…})         where each assignment goes: a stable counting sort by expert
///   gather_rows(device, groups, x, source, y)    y[s] = x[source[s]] for the rows s of all groups
///   combine_rows(device, y, slots, top_k, gates, out, into)
///       out[t] = Σ_k gates[t, k] · y[slots[t, k]], or added to out; a slot of -1 adds nothing; null gates count as 1
///   combine_rows_backward(device, y, slots, top_k, gates, dout, dy, dgates)
///       dy[slots[t, k]] = gates[t, k] · dout[t], overwritten; dgates[t, k] = dout[t] · y[slots[t, k]], 0 where slot is -1
///
/// x, out, dout are (T, D), y and dy (assignments, D), slots and gates (T, K).
namespace moe_mamba {

/// Sorts the T·K assignments by expert, earliest token first. An expert takes at most `capacity` of them; one past that
/// is dropped and gets the slot -1.
struct GroupTokens {
  Index tokens;          // T
  Index top_k;           // K
  Index expert_count;    // E
  Index capacity;        // T or more for no limit
  const Index* experts;  // (T, K)
  Index* slots;          // (T, K): the row that an assignment takes in expert order, or -1
  Index* source;         // (T·K): the token of each row; the first offsets[E] entries are written
  Index* offsets;        // (E + 1): expert e has rows offsets[e] … offsets[e + 1] - 1
  double* dropped;       // the number of dropped assignments, overwritten
};

namespace reference {

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

}  // namespace reference
}  // namespace moe_mamba
