#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/cuda/common/order_key.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/sampling/sample_job.cuh"
#include "moe_mamba/cuda/sampling/weight_histogram.cuh"
#include "moe_mamba/ops/sampling.hpp"

/// Draws tokens on a CUDA device; the contract is in ops/sampling.hpp. For a row of logits x, whose keys are integers in
/// the same order:
///
///   weight_i = exp((x_i - largest) / temperature)
///   kept     the i with key_i > cut, and the first `ties` of those with key_i = cut
///   token    the first kept i with Σ_{kept j <= i} weight_j > u Σ_{kept j} weight_j,  u uniform in [0, 1)
///
/// A row is divided into chunks, one per block, which depend on the vocabulary alone, so a row draws the same token in
/// any batch. In every launch but the first, the last block of a row to arrive combines the results of all:
///
///   largest_logit_kernel    the largest logit of each chunk
///   select_kernel           for each of top-k and top-p, once per digit of a key (a radix select): the weights, or for
///                           top-k ones, summed by digit; the cut's digit is where they reach the wanted sum
///   draw_kernel             the weights of each chunk's kept tokens; then the chunk and the token in it
///
/// Nothing is sorted.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// The largest logit of each chunk. Clears the counters of the following launches, and histograms if they are used.
template <class C>
__global__ void __launch_bounds__(sample_threads) largest_logit_kernel(SampleJob<C> job, bool selects) {
  const SampleBuffers<C>& buffers = job.buffers;
  Choice<C> best{0, int(job.first())};
  bool invalid = false;
  for (Index start = job.first(); start < job.last(); start += sample_tile) {
    C values[sample_per_thread];
    job.load(start, values);
    for (int i = 0; i < sample_per_thread; ++i) {
      const Choice<C> candidate{order_key(values[i]), int(start + threadIdx.x) + i * sample_threads};
      invalid = invalid || !(values[i] < C(INFINITY));
      if (candidate.before(best)) best = candidate;
    }
  }
  if (selects) {
    unsigned long long* const histogram = buffers.histograms + job.row() * buffers.histogram_size;
    for (Index i = blockIdx.y * sample_threads + threadIdx.x; i < buffers.histogram_size;
         i += job.chunks.count * sample_threads) {
      histogram[i] = 0;
    }
  }
  best = block_first<sample_threads>(best);
  invalid = __syncthreads_or(invalid) != 0;
  if (threadIdx.x != 0) return;
  if (blockIdx.y == 0) buffers.tickets[job.row()] = 0;
  buffers.keys[job.slot(blockIdx.y)] = best.key;
  buffers.indices[job.slot(blockIdx.y)] = invalid ? -1 : best.index;
}

/// The last launch at temperature 0.
template <class C>
__global__ void __launch_bounds__(sample_threads) greedy_kernel(SampleJob<C> job) {
  begin_row(job);
}

/// Finds one digit of the key of the last token to be kept, and with the last digit the cut: by counting tokens up to
/// top_k, or by summing weights up to top_p times their total. An earlier cut remains in force. `begins`: whether this
/// is the second launch.
template <class C>
__global__ void __launch_bounds__(sample_threads)
    select_kernel(SampleJob<C> job, int digit_number, bool counting, bool begins) {
  using Key = OrderKey<C>;
  using Histogram = WeightHistogram;
  constexpr int bins_per_thread = Histogram::bins / sample_threads;
  __shared__ Histogram histogram;
  __shared__ int reached, last_occupied;
  static_assert(sample_tile <= Histogram::most_added);
  const KeyDigit<Key> digit(digit_number);
  C values[sample_per_thread];
  job.load(job.first(), values);
  histogram.clear();
  SampleRow<C> state = begins ? begin_row(job) : job.buffers.rows[job.row()];
  if (!state.draws) return;

  const auto weight = [&](C logit) { return counting ? 1.0 : job.weight(state, logit); };
  unsigned long long* const sums = job.buffers.histograms + job.row() * SampleBuffers<C>::histogram_size;
  for (Index start = job.first(); start < job.last(); start += sample_tile) {
    __syncthreads();
    for (int i = 0; i < sample_per_thread; ++i) {
      const Key key = order_key(values[i]);
      const bool present = start + threadIdx.x + i * sample_threads < job.last();
      if (present && key > state.cut && digit.follows(key, state.prefix)) {
        histogram.add(digit.of(key), weight(values[i]));
      }
    }
    job.load(start + sample_tile, values);
    __syncthreads();
    histogram.flush(sums);
  }
  if (!job.arrives_last()) return;

  // Bins from the highest down; a thread has neighbouring ones.
  histogram.template collect<sample_threads>(sums);
  if (threadIdx.x == 0) reached = Histogram::bins, last_occupied = 0;
  __syncthreads();
  double weights[bins_per_thread], sum = 0;
  for (int i = 0; i < bins_per_thread; ++i) {
    const int bin = Histogram::bins - 1 - (int(threadIdx.x) * bins_per_thread + i);
    weights[i] = histogram.weights[bin];
    // The kept ties of the earlier cut.
    if (state.ties > 0 && digit.of(state.cut) == bin && digit.follows(state.cut, state.prefix)) {
      weights[i] += double(state.ties) * weight(ordered_value(state.cut));
    }
    sum += weights[i];
  }
  double total = 0, before = block_sum_before<sample_threads>(sum, total);
  if (digit_number == 0) {
    state.wanted = counting ? double(job.sample.sampling.top_k) : double(job.sample.sampling.top_p) * total;
    state.before = 0;
  }
  before += state.before;
  const double earlier = before;
  for (int i = 0; i < bins_per_thread; ++i) {
    const int place = int(threadIdx.x) * bins_per_thread + i;
    before += weights[i];
    if (weights[i] > 0) {
      atomicMax(&last_occupied, place);
      if (before >= state.wanted) atomicMin(&reached, place);
    }
  }
  __syncthreads();
  // Rounding may leave the sum slightly below the one that the earlier digits reached.
  const int place = reached < Histogram::bins ? reached : last_occupied;
  if (place / bins_per_thread != int(threadIdx.x)) return;
  state.before = earlier;
  for (int i = 0; i < place % bins_per_thread; ++i) state.before += weights[i];
  state.prefix |= static_cast<Key>(Histogram::bins - 1 - place) << digit.begin;
  if (digit.begin == 0) {
    const double each = weight(ordered_value(state.prefix));
    double ties = max(1.0, ceil((state.wanted - state.before) / each));
    // The fewest ties that reach it, corrected for the rounding of the quotient.
    if (ties > 1 && state.before + (ties - 1) * each >= state.wanted) ties -= 1;
    if (state.before + ties * each < state.wanted) ties += 1;
    const Index most = state.prefix == state.cut ? state.ties : job.sample.logits.columns;
    state.ties = ties < double(most) ? Index(ties) : most;
    state.cut = state.prefix;
    state.prefix = 0;
  }
  job.buffers.rows[job.row()] = state;
}

/// Sums the weights of a row's kept tokens, and finds the token at which their running sum passes a random share of the
/// total.
template <class C>
__global__ void __launch_bounds__(sample_threads) draw_kernel(SampleJob<C> job, bool begins) {
  constexpr int per_thread = sample_per_thread;
  constexpr int nowhere = int(most_sampled_tokens);
  __shared__ double threshold, chunk_before;
  __shared__ Index chunk_ties;  // how many tokens at the cut are kept, from this chunk on
  __shared__ int found, last_occupied, last_occupied_chunk;
  const C* const logits = job.logits();
  C values[per_thread];
  job.load(job.first(), values);
  const std::uint64_t position = job.sample.positions[job.row()];
  const SampleRow<C> state = begins ? begin_row(job) : job.buffers.rows[job.row()];
  if (!state.draws) return;

  double sum = 0;
  Index ties = 0;
  for (Index start = job.first(); start < job.last(); start += sample_tile) {
    for (int i = 0; i < per_thread; ++i) {
      const auto key = order_key(values[i]);
      const bool present = start + threadIdx.x + i * sample_threads < job.last();
      if (present && key > state.cut) sum += job.weight(state, values[i]);
      ties += present && key == state.cut ? 1 : 0;
    }
    job.load(start + sample_tile, values);
  }
  sum = block_sum<sample_threads>(sum);
  ties = block_sum<sample_threads>(ties);
  if (threadIdx.x == 0) {
    job.buffers.sums[job.slot(blockIdx.y)] = sum;
    job.buffers.ties[job.slot(blockIdx.y)] = ties;
  }
  if (!job.arrives_last()) return;

  // Finds the chunk, with one thread per chunk.
  const bool present = threadIdx.x < job.chunks.count;
  sum = present ? __ldcg(&job.buffers.sums[job.slot(threadIdx.x)]) : 0.0;
  ties = present ? __ldcg(&job.buffers.ties[job.slot(threadIdx.x)]) : Index{0};
  Index all_ties = 0;
  const Index ties_left = max(Index{0}, state.ties - block_sum_before<sample_threads>(ties, all_ties));
  if (ties_left > 0 && ties > 0) sum += double(min(ties, ties_left)) * job.weight(state, ordered_value(state.cut));
  double total = 0;
  const double before = block_sum_before<sample_threads>(sum, total);
  if (threadIdx.x == 0) {
    Random random = sampling_random(job.sample.seed, job.sample.stream + std::uint64_t(job.row()), position);
    threshold = random.uniform() * total;
    job.sample.positions[job.row()] = random.position();
    found = nowhere;
    last_occupied = last_occupied_chunk = 0;
  }
  __syncthreads();
  if (sum > 0) {
    atomicMax(&last_occupied_chunk, int(threadIdx.x));  // rounding may leave the sum slightly below the share
    if (before + sum > threshold) atomicMin(&found, int(threadIdx.x));
  }
  __syncthreads();
  const int chunk = found < nowhere ? found : last_occupied_chunk;
  if (chunk == int(threadIdx.x)) {
    chunk_before = before;
    chunk_ties = ties_left;
  }
  __syncthreads();

  // Finds the token in it, tile by tile.
  const Index first = chunk * job.chunks.length, last = min(first + job.chunks.length, job.sample.logits.columns);
  double tile_before = chunk_before;
  Index tile_ties = chunk_ties;
  if (threadIdx.x == 0) found = nowhere;
  __syncthreads();
  for (Index start = first; start < last && found == nowhere; start += sample_tile) {
    const Index own = start + threadIdx.x * per_thread;
    int own_ties = 0, tile_tie_count = 0;
    for (Index i = own; i < min(own + per_thread, last); ++i) own_ties += order_key(logits[i]) == state.cut ? 1 : 0;
    Index own_left = tile_ties - block_sum_before<sample_threads>(own_ties, tile_tie_count);
    double weights[per_thread], own_sum = 0, tile_sum = 0;
    for (int i = 0; i < per_thread; ++i) {
      weights[i] = 0;
      if (own + i >= last) continue;
      const auto key = order_key(logits[own + i]);
      if (key > state.cut || (key == state.cut && own_left-- > 0)) weights[i] = job.weight(state, logits[own + i]);
      own_sum += weights[i];
    }
    double passed = tile_before + block_sum_before<sample_threads>(own_sum, tile_sum);
    for (int i = 0; i < per_thread; ++i) {
      passed += weights[i];
      if (weights[i] > 0) {
        atomicMax(&last_occupied, int(own) + i);
        if (passed > threshold) atomicMin(&found, int(own) + i);
      }
    }
    tile_before += tile_sum;
    tile_ties -= tile_tie_count;
    __syncthreads();
  }
  if (threadIdx.x == 0) job.sample.tokens[job.row()] = Token(found < nowhere ? found : last_occupied);
}

}  // namespace detail

/// Bytes of scratch that sample needs for `rows` rows of logits of type C, or of any type for void.
template <class C = void>
std::size_t sample_scratch(const Device& device, Index rows, Index vocabulary) {
  if constexpr (std::is_void_v<C>) {
    return std::max(sample_scratch<float>(device, rows, vocabulary), sample_scratch<double>(device, rows, vocabulary));
  } else {
    return bytes_of<detail::SampleBuffers<C>>(rows, vocabulary);
  }
}

/// Draws a token for each row, in two launches and three more (six for logits in double) for each of top-k and top-p.
template <ComputeScalar C>
void sample(Device& device, const SampleTokens<C>& sample) {
  const Index rows = sample.logits.rows, vocabulary = sample.logits.columns;
  if (rows == 0) return;
  const Sampling& sampling = sample.sampling;
  Arena arena = sample.scratch;
  const detail::SampleJob<C> job{sample, detail::SampleBuffers<C>(arena, rows, vocabulary),
                                 detail::SampleChunks(vocabulary)};
  const bool draws = sampling.temperature > 0;
  const bool by_count = draws && sampling.top_k > 0 && sampling.top_k < vocabulary;
  const bool by_weight = draws && sampling.top_p < 1;

  const dim3 blocks(unsigned(rows), unsigned(job.chunks.count)), threads(detail::sample_threads);
  detail::largest_logit_kernel<<<blocks, threads, 0, device.stream()>>>(job, by_count || by_weight);
  check_launch("largest_logit_kernel");
  if (!draws) {
    detail::greedy_kernel<<<unsigned(rows), threads, 0, device.stream()>>>(job);
    check_launch("greedy_kernel");
    return;
  }
  bool begins = true;
  for (const bool counting : {true, false}) {
    if (!(counting ? by_count : by_weight)) continue;
    for (int digit = 0; digit < detail::KeyDigit<detail::OrderKey<C>>::count; ++digit) {
      detail::select_kernel<<<blocks, threads, 0, device.stream()>>>(job, digit, counting, begins);
      check_launch("select_kernel");
      begins = false;
    }
  }
  detail::draw_kernel<<<blocks, threads, 0, device.stream()>>>(job, begins);
  check_launch("draw_kernel");
}

}  // namespace moe_mamba::inline v0_2::cuda
