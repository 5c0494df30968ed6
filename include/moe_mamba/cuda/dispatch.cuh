#pragma once

#include <type_traits>

#include "moe_mamba/cuda/block/counting_sort.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/dispatch.hpp"

/// Bringing the tokens of one expert together and their results back, on a CUDA device; the contract is in
/// ops/dispatch.hpp.
namespace moe_mamba::cuda {

namespace detail {

struct ExpertOfAssignment {
  const Index* experts;
  __device__ Index operator()(Index assignment) const { return experts[assignment]; }
};

struct PlaceAssignment {
  GroupTokens group;
  __device__ void operator()(Index assignment, Index expert, Index position) const {
    if (position < group.capacity) {
      const Index slot = group.offsets[expert] + position;
      group.slots[assignment] = slot;
      group.source[slot] = assignment / group.top_k;
    } else {
      group.slots[assignment] = -1;
    }
  }
};

template <class C>
struct GatherRun {
  MatrixView<const C> x;
  const Index* source;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index s, Index column) const {
    store_run<count>(load_run<count>(x, source[s], column), y, s, column);
  }
};

template <class C>
struct CombineRun {
  MatrixView<const C> y;
  const Index* slots;
  Index top_k;
  const C* gates;
  MatrixView<C> out;
  bool add;
  template <int count>
  __device__ void operator()(Index t, Index column) const {
    Run<C, count> sum = {};
    if (add) sum = load_run<count>(out, t, column);
    for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
      const Index slot = slots[a];
      if (slot < 0) continue;
      const C gate = gates == nullptr ? C(1) : gates[a];
      const auto result = load_run<count>(y, slot, column);
      for (int i = 0; i < count; ++i) sum.values[i] += gate * result.values[i];
    }
    store_run<count>(sum, out, t, column);
  }
};

template <int threads, class C>
__global__ void __launch_bounds__(threads)
    combine_backward_kernel(MatrixView<const C> y, const Index* slots, Index top_k, Index assignments, const C* gates,
                            MatrixView<const C> dout, MatrixView<C> dy, C* dgates) {
  for (Index a = blockIdx.x; a < assignments; a += gridDim.x) {
    const Index slot = slots[a], t = a / top_k;
    C dot = 0;
    if (slot >= 0) {
      const C gate = gates == nullptr ? C(1) : gates[a];
      for (Index i = threadIdx.x; i < dout.columns; i += threads) {
        const C gradient = dout(t, i);
        if (dgates != nullptr) dot += gradient * y(slot, i);
        dy(slot, i) = gate * gradient;
      }
    }
    if (dgates == nullptr) continue;
    dot = block_sum<threads>(dot);
    if (threadIdx.x == 0) dgates[a] = dot;
  }
}

}  // namespace detail

/// A stable counting sort in pieces that run at the same time. Throws std::invalid_argument for more experts than the
/// device's scratch memory takes, 2^20 at least.
inline void group_tokens(Device& device, const GroupTokens& group) {
  detail::counting_sort(device, group.tokens * group.top_k, group.expert_count, group.capacity,
                        detail::ExpertOfAssignment{group.experts}, detail::PlaceAssignment{group}, group.offsets,
                        group.dropped, Arena(device.scratch()));
}

/// y[s] = x[source[s]] for the rows s of all groups
template <ComputeScalar C>
void gather_rows(Device& device, Groups groups, Input<C> x, const Index* source, MatrixView<C> y) {
  const detail::GatherRun<C> each{x, source, y};
  detail::for_runs<C>(device, {y.rows, groups.offsets + groups.count}, x.columns, each, x, y);
}

/// out[t] = Σ_k gates[t, k] · y[slots[t, k]], or added to out
template <ComputeScalar C>
void combine_rows(Device& device, Input<C> y, const Index* slots, Index top_k, const std::type_identity_t<C>* gates,
                  MatrixView<C> out, Into into) {
  const detail::CombineRun<C> each{y, slots, top_k, gates, out, into == Into::add};
  detail::for_runs<C>(device, {out.rows}, out.columns, each, y, out);
}

/// dy[slots[t, k]] = gates[t, k] · dout[t] and dgates[t, k] = dout[t] · y[slots[t, k]]; dgates may be null.
template <ComputeScalar C>
void combine_rows_backward(Device& device, Input<C> y, const Index* slots, Index top_k,
                           const std::type_identity_t<C>* gates, Input<C> dout, MatrixView<C> dy,
                           std::type_identity_t<C>* dgates) {
  constexpr int threads = 128;
  const Index assignments = dout.rows * top_k;
  if (assignments == 0) return;
  detail::combine_backward_kernel<threads>
      <<<unsigned(std::min(assignments, Index{1} << 30)), threads, 0, device.stream()>>>(y, slots, top_k, assignments,
                                                                                         gates, dout, dy, dgates);
  check_launch("combine_backward_kernel");
}

}  // namespace moe_mamba::cuda
