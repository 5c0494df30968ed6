#pragma once

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"

/// Gathers the tokens of each expert, and combines the results.
///
///   group_tokens(device, GroupTokens{…})         sorts the assignments by expert (stable counting sort)
///   gather_rows(device, groups, x, source, y)    y[s] = x[source[s]] for the rows s of all groups
///   combine_rows(device, y, slots, top_k, gates, out, into)
///       out[t] = Σ_k gates[t, k] · y[slots[t, k]], or added to out; a slot of -1 adds nothing; null gates count as 1
///   combine_rows_backward(device, y, slots, top_k, gates, dout, dy, dgates)
///       dy[slots[t, k]] = gates[t, k] · dout[t], overwritten; dgates[t, k] = dout[t] · y[slots[t, k]], 0 where slot is -1
///
/// x, out, dout are (T, D), y and dy (assignments, D), slots and gates (T, K).
namespace moe_mamba::inline v0_2 {

/// Sorts the T·K assignments by expert, earliest token first. An expert accepts at most `capacity` of them; others are dropped
/// and get the slot -1.
struct GroupTokens {
  Index tokens;          // T
  Index top_k;           // K
  Index expert_count;    // E
  Index capacity;        // T or more: no limit
  const Index* experts;  // (T, K)
  Index* slots;          // (T, K): the row of each assignment in expert order, or -1
  Index* source;         // (T·K): the token of each row; the first offsets[E] entries are written
  Index* offsets;        // (E + 1): expert e has rows offsets[e] … offsets[e + 1] - 1
  double* dropped;       // the number of dropped assignments, overwritten
};

}  // namespace moe_mamba::inline v0_2
