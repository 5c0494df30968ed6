#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/order_key.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/sampling/weight_histogram.cuh"
#include "moe_mamba/ops/sampling.hpp"

/// Shared by the launches that draw a token: the division of rows of logits into chunks, a row's state, and the
/// buffers.
namespace moe_mamba::inline v0_2::cuda::detail {

inline constexpr int sample_threads = 512;
/// Logits that a thread and a block hold at a time.
inline constexpr int sample_per_thread = 4, sample_tile = sample_per_thread * sample_threads;

/// How a row is divided: at most one chunk per thread of the block that combines them.
struct SampleChunks {
  Index length, count;

  explicit SampleChunks(Index vocabulary)
      : length(ceiling_divide(ceiling_divide(vocabulary, Index{sample_threads}), Index{sample_tile}) * sample_tile),
        count(ceiling_divide(vocabulary, length)) {}
};

/// A row's state between launches. The kept tokens are those whose keys are above `cut`, and the first `ties` of those
/// with key `cut`.
template <class C>
struct SampleRow {
  bool draws;      // whether a token is to be drawn: not if a logit is invalid, nor at temperature 0
  double largest;  // logit
  OrderKey<C> cut;
  Index ties;
  // During the search for the next cut: its digits so far, the weight of all keys above these, and the weight to be
  // reached.
  OrderKey<C> prefix;
  double before, wanted;
};

template <class C>
struct SampleBuffers {
  unsigned* tickets;               // (B)
  unsigned long long* histograms;  // (B, parts, bins)
  SampleRow<C>* rows;              // (B)
  OrderKey<C>* keys;               // (B, chunks): of the largest logit
  int* indices;                    // (B, chunks): its index, or -1 if a logit of the chunk is invalid
  double* sums;                    // (B, chunks): weight above the cut
  Index* ties;                     // (B, chunks): tokens at the cut

  static constexpr Index histogram_size = WeightHistogram::parts * WeightHistogram::bins;

  SampleBuffers(Arena& arena, Index row_count, Index vocabulary) {
    const Index chunks = row_count * SampleChunks(vocabulary).count;
    tickets = arena.take<unsigned>(row_count);
    histograms = arena.take<unsigned long long>(row_count * histogram_size);
    rows = arena.take<SampleRow<C>>(row_count);
    keys = arena.take<OrderKey<C>>(chunks);
    indices = arena.take<int>(chunks);
    sums = arena.take<double>(chunks);
    ties = arena.take<Index>(chunks);
  }
};

/// The operands of every launch; a block's row and chunk.
template <class C>
struct SampleJob {
  SampleTokens<C> sample;
  SampleBuffers<C> buffers;
  SampleChunks chunks;

  __device__ Index row() const { return blockIdx.x; }
  __device__ const C* logits() const { return sample.logits.row(row()); }
  /// Prefetches logits start + thread, start + thread + threads, … of the chunk; minus infinity after its end.
  __device__ void load(Index start, C (&values)[sample_per_thread]) const {
#pragma unroll
    for (int i = 0; i < sample_per_thread; ++i) {
      const Index at = start + threadIdx.x + i * sample_threads;
      values[i] = at < last() ? logits()[at] : -C(INFINITY);
    }
  }
  __device__ Index first() const { return blockIdx.y * chunks.length; }
  __device__ Index last() const { return min(first() + chunks.length, sample.logits.columns); }
  /// The index of a chunk's results.
  __device__ Index slot(Index chunk) const { return row() * chunks.count + chunk; }
  __device__ bool arrives_last() const { return detail::arrives_last(&buffers.tickets[row()], unsigned(chunks.count)); }
  __device__ double weight(const SampleRow<C>& state, C logit) const {
    return sampling_weight(double(logit), state.largest, sample.sampling.temperature);
  }
};

/// The initial state of a row, in the second launch. Completes rows that need no draw or cannot have one.
template <class C>
__device__ inline SampleRow<C> begin_row(const SampleJob<C>& job) {
  Choice<C> best{0, 0};
  if (threadIdx.x < job.chunks.count) {
    const Index slot = job.slot(threadIdx.x);
    best = {job.buffers.keys[slot], job.buffers.indices[slot]};
  }
  const bool invalid = __syncthreads_or(best.index < 0) != 0;
  best = block_first<sample_threads>(best);
  const bool none = !invalid && best.key == order_key(-C(INFINITY));
  const SampleRow<C> state{.draws = !invalid && !none && job.sample.sampling.temperature > 0,
                           .largest = double(ordered_value(best.key))};
  if (blockIdx.y == 0 && threadIdx.x == 0) {
    const Index row = job.row();
    job.buffers.rows[row] = state;
    if (!state.draws) job.sample.tokens[row] = invalid || none ? Token(-1) : Token(best.index);
    if (invalid || none) job.sample.status[row] |= invalid ? logit_not_finite : all_tokens_excluded;
  }
  return state;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
