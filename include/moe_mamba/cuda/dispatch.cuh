#pragma once

#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/counting_sort.cuh"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/dispatch.hpp"

/// Token dispatch on a CUDA device: grouping tokens by expert, gathering their rows and combining the experts' results;
/// the contract is in ops/dispatch.hpp.
namespace moe_mamba::inline v0_2::cuda {

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
struct GatherVector {
  MatrixView<const C> x;
  const Index* source;
  MatrixView<C> y;
  template <int count>
  __device__ void operator()(Index s, Index column) const {
    store<count>(load<count>(x, source[s], column), y, s, column);
  }
};

template <class C>
struct CombineVector {
  MatrixView<const C> y;
  const Index* slots;
  Index top_k;
  const compute_t<C>* gates;
  MatrixView<C> out;
  bool add;
  template <int count>
  __device__ void operator()(Index t, Index column) const {
    using T = compute_t<C>;
    Vector<T, count> sum = {};
    if (add) sum = load_widened<count>(out, t, column);
    for (Index a = t * top_k; a < (t + 1) * top_k; ++a) {
      const Index slot = slots[a];
      if (slot < 0) continue;
      const T gate = gates == nullptr ? T(1) : gates[a];
      const auto result = load_widened<count>(y, slot, column);
      for (int i = 0; i < count; ++i) sum.values[i] += gate * result.values[i];
    }
    store_narrowed<count>(sum, out, t, column);
  }
};

inline constexpr int combine_threads = 128;

/// One warp per assignment, in vectors of `count` elements.
template <int count, class C>
__global__ void __launch_bounds__(combine_threads)
    combine_backward_kernel(MatrixView<const C> y, const Index* slots, Index top_k, Index assignments,
                            const compute_t<C>* gates, MatrixView<const C> dout, MatrixView<C> dy,
                            compute_t<C>* dgates) {
  await_stream();
  release_stream();
  using T = compute_t<C>;
  constexpr int warps = combine_threads / warp_size;
  const int lane = lane_index();
  for (Index a = Index(blockIdx.x) * warps + warp_index(); a < assignments; a += Index(gridDim.x) * warps) {
    const Index slot = slots[a], t = a / top_k;
    T dot = 0;
    if (slot >= 0) {
      const T gate = gates == nullptr ? T(1) : gates[a];
#pragma unroll 2
      for (Index column = lane * count; column < dout.columns; column += warp_size * count) {
        auto gradient = load_widened<count>(dout, t, column);
        if (dgates != nullptr) {
          const auto result = load_widened<count>(y, slot, column);
          for (int i = 0; i < count; ++i) dot += gradient.values[i] * result.values[i];
        }
        for (int i = 0; i < count; ++i) gradient.values[i] *= gate;
        store_narrowed<count>(gradient, dy, slot, column);
      }
    }
    if (dgates == nullptr) continue;
    dot = warp_sum(dot);
    if (lane == 0) dgates[a] = dot;
  }
}

}  // namespace detail

/// A stable counting sort in parallel chunks. Throws std::invalid_argument for more experts than fit in the device's
/// scratch memory (at least 2^20).
inline void group_tokens(Device& device, const GroupTokens& group) {
  detail::counting_sort(device, group.tokens * group.top_k, group.expert_count, group.capacity,
                        detail::ExpertOfAssignment{group.experts}, detail::PlaceAssignment{group}, group.offsets,
                        group.dropped, Arena(device.scratch()));
}

/// y[s] = x[source[s]] for the rows s of all groups
template <StorageScalar C>
void gather_rows(Device& device, Groups groups, Input<C> x, const Index* source, MatrixView<C> y) {
  const detail::GatherVector<C> each{x, source, y};
  detail::for_vectors(device, {y.rows, groups.offsets + groups.count}, x.columns, each, x, y);
}

/// out[t] = or += Σ_k gates[t, k] · y[slots[t, k]]
template <StorageScalar C>
void combine_rows(Device& device, Input<C> y, const Index* slots, Index top_k, const compute_t<C>* gates,
                  MatrixView<C> out, Into into) {
  const detail::CombineVector<C> each{y, slots, top_k, gates, out, into == Into::add};
  detail::for_vectors(device, {out.rows}, out.columns, each, y, out);
}

/// dy[slots[t, k]] = gates[t, k] · dout[t] and dgates[t, k] = dout[t] · y[slots[t, k]]; dgates may be null.
template <StorageScalar C>
void combine_rows_backward(Device& device, Input<C> y, const Index* slots, Index top_k, const compute_t<C>* gates,
                           Input<C> dout, MatrixView<C> dy, compute_t<C>* dgates) {
  constexpr int wide = detail::full_vector<C>;
  const Index assignments = dout.rows * top_k,
              blocks = ceiling_divide<Index>(assignments, detail::combine_threads / detail::warp_size);
  if (assignments == 0) return;
  const bool runs = detail::can_vectorise<wide>(y, dout, dy);
  const auto kernel = runs ? detail::combine_backward_kernel<wide, C> : detail::combine_backward_kernel<1, C>;
  detail::launch_dependent(device, kernel, unsigned(std::min(blocks, Index{1} << 30)), detail::combine_threads, 0, y,
                           slots, top_k, assignments, gates, dout, dy, dgates);
}

}  // namespace moe_mamba::inline v0_2::cuda
