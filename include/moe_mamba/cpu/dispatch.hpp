#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/ops/dispatch.hpp"

/// Token dispatch on the CPU: grouping tokens by expert, gathering their rows and combining the experts' results; the
/// contract is in ops/dispatch.hpp.
namespace moe_mamba::inline v0_2::cpu {

/// A counting sort: two passes over the assignments, in one thread.
inline void group_tokens(Device&, const GroupTokens& group) {
  const Index assignments = group.tokens * group.top_k;
  Index* const kept = group.offsets + 1;
  std::fill_n(group.offsets, group.expert_count + 1, Index(0));
  Index dropped = 0;
  for (Index a = 0; a < assignments; ++a) {
    Index& count = kept[group.experts[a]];
    if (count < group.capacity) {
      group.slots[a] = count++;
    } else {
      group.slots[a] = -1;
      ++dropped;
    }
  }
  for (Index e = 0; e < group.expert_count; ++e) kept[e] += group.offsets[e];
  for (Index t = 0, a = 0; t < group.tokens; ++t) {
    for (Index k = 0; k < group.top_k; ++k, ++a) {
      if (group.slots[a] < 0) continue;
      group.slots[a] += group.offsets[group.experts[a]];
      group.source[group.slots[a]] = t;
    }
  }
  *group.dropped = static_cast<double>(dropped);
}

/// y[s] = x[source[s]] for the rows s of all groups
template <ComputeScalar C>
void gather_rows(Device& device, Groups groups, Input<C> x, const Index* source, MatrixView<C> y) {
  detail::for_rows(device, groups.offsets[groups.count], x.columns, [&](Index first, Index last) {
    for (Index s = first; s < last; ++s) std::copy_n(x.row(source[s]), x.columns, y.row(s));
  });
}

namespace detail {

/// to = factor · from or to += factor · from
template <ComputeScalar C>
inline void scale_row(Index count, C factor, const C* from, C* to, Into into) {
  if (into == Into::assign) {
    sweep<C>(count, [=]<class P>(Index i) { store(to + i, factor * load<P>(from + i)); });
  } else {
    sweep<C>(count, [=]<class P>(Index i) { store(to + i, fma(factor, load<P>(from + i), load<P>(to + i))); });
  }
}

}  // namespace detail

/// out[t] = or += Σ_k gates[t, k] · y[slots[t, k]]
template <ComputeScalar C>
void combine_rows(Device& device, Input<C> y, const Index* slots, Index top_k, const std::type_identity_t<C>* gates,
                  MatrixView<C> out, Into into) {
  detail::for_rows(device, out.rows, out.columns * std::max<Index>(1, top_k), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      C* to = out.row(t);
      Into next = into;
      for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
        if (slots[a] < 0) continue;
        detail::scale_row(out.columns, gates == nullptr ? C(1) : gates[a], y.row(slots[a]), to, next);
        next = Into::add;
      }
      if (next == Into::assign) std::fill_n(to, out.columns, C(0));
    }
  });
}

/// dy[slots[t, k]] = gates[t, k] · dout[t] and dgates[t, k] = dout[t] · y[slots[t, k]]; dgates may be null.
template <ComputeScalar C>
void combine_rows_backward(Device& device, Input<C> y, const Index* slots, Index top_k,
                           const std::type_identity_t<C>* gates, Input<C> dout, MatrixView<C> dy,
                           std::type_identity_t<C>* dgates) {
  const Index columns = dout.columns;
  detail::for_rows(device, dout.rows, columns * std::max<Index>(1, top_k), [&](Index first, Index last) {
    for (Index t = first; t < last; ++t) {
      const C* gradient = dout.row(t);
      for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
        C dot = 0;
        if (slots[a] >= 0) {
          if (dgates != nullptr) {
            const C* result = y.row(slots[a]);
            dot = detail::sweep_sum<C>(
                columns, [=]<class P>(Index i, P sum) { return fma(load<P>(gradient + i), load<P>(result + i), sum); });
          }
          detail::scale_row(columns, gates == nullptr ? C(1) : gates[a], gradient, dy.row(slots[a]), Into::assign);
        }
        if (dgates != nullptr) dgates[a] = dot;
      }
    }
  });
}

}  // namespace moe_mamba::inline v0_2::cpu
