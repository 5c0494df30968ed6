#pragma once

#include <algorithm>
#include <type_traits>

#include "moe_mamba/cuda/block/order_key.cuh"
#include "moe_mamba/cuda/block/weight_histogram.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/sampling.hpp"

/// Draws tokens on a CUDA device; the contract is in ops/sampling.hpp.
///
/// A row is cut into pieces, a block each, by the vocabulary alone, so that a row draws the same in any batch. In each of
/// the launches the last block of a row to arrive puts together what all have found: first the largest logit; then, for
/// top-k as for top-p, digit by digit the key of the last token that is kept, which is where the sum of the weights of
/// larger keys (for top-k: of ones) reaches what is wanted; and at last the token. Nothing is sorted.
namespace moe_mamba::cuda {

namespace detail {

inline constexpr int sample_threads = 256;
/// Logits of a row that a block looks through for the token at a time: neighbours in a thread.
inline constexpr int sample_chunk = 4 * sample_threads;

/// How a row is cut: at most a piece for each thread of the block that puts them together.
struct SamplePieces {
  Index length, count;

  explicit SamplePieces(Index vocabulary)
      : length(ceiling_divide(ceiling_divide(vocabulary, Index{sample_threads}), Index{sample_chunk}) * sample_chunk),
        count(ceiling_divide(vocabulary, length)) {}
};

/// What the launches know of a row. Kept are the tokens whose keys are above `cut`, and the first `ties` of those whose
/// key it is.
template <class C>
struct SampleRow {
  bool draws;      // whether there is something to be drawn: not where a logit is broken, nor without temperature
  double largest;  // logit
  OrderKey<C> cut;
  Index ties;
  // While the next cut is looked for: its digits so far, the weight of all keys above those, and the weight to be reached.
  OrderKey<C> prefix;
  double before, wanted;
};

template <class C>
struct SampleBuffers {
  unsigned* tickets;               // (B)
  unsigned long long* histograms;  // (B, parts, bins)
  SampleRow<C>* rows;              // (B)
  OrderKey<C>* keys;               // (B, pieces): of the largest logit
  int* indices;                    // (B, pieces): its index, or -1 where a logit of the piece is broken
  double* sums;                    // (B, pieces): weight above the cut
  Index* ties;                     // (B, pieces): tokens at the cut

  static constexpr Index histogram_size = WeightHistogram::parts * WeightHistogram::bins;

  SampleBuffers(Arena& arena, Index row_count, Index vocabulary) {
    const Index pieces = row_count * SamplePieces(vocabulary).count;
    tickets = arena.take<unsigned>(row_count);
    histograms = arena.take<unsigned long long>(row_count * histogram_size);
    rows = arena.take<SampleRow<C>>(row_count);
    keys = arena.take<OrderKey<C>>(pieces);
    indices = arena.take<int>(pieces);
    sums = arena.take<double>(pieces);
    ties = arena.take<Index>(pieces);
  }
};

/// The operands of every launch; a block's row and piece.
template <class C>
struct SampleJob {
  SampleTokens<C> sample;
  SampleBuffers<C> buffers;
  SamplePieces pieces;

  __device__ Index row() const { return blockIdx.x; }
  __device__ const C* logits() const { return sample.logits.row(row()); }
  __device__ Index first() const { return blockIdx.y * pieces.length; }
  __device__ Index last() const { return min(first() + pieces.length, sample.logits.columns); }
  /// Where what a piece has found is kept.
  __device__ Index slot(Index piece) const { return row() * pieces.count + piece; }
  __device__ bool arrives_last() const { return detail::arrives_last(&buffers.tickets[row()], unsigned(pieces.count)); }
  __device__ double weight(const SampleRow<C>& state, C logit) const {
    return sampling_weight(double(logit), state.largest, sample.sampling.temperature);
  }
};

/// The largest logit and its index; tokens of rows that need no draw.
template <class C>
__global__ void __launch_bounds__(sample_threads) largest_logit_kernel(SampleJob<C> job) {
  const C* const logits = job.logits();
  Choice<C> best{0, int(job.first())};
  bool broken = false;
  for (Index i = job.first() + threadIdx.x; i < job.last(); i += sample_threads) {
    const Choice<C> candidate{order_key(logits[i]), int(i)};
    broken = broken || !(logits[i] < C(INFINITY));
    if (candidate.before(best)) best = candidate;
  }
  best = block_first<sample_threads>(best);
  broken = __syncthreads_or(broken) != 0;
  if (threadIdx.x == 0) {
    job.buffers.keys[job.slot(blockIdx.y)] = best.key;
    job.buffers.indices[job.slot(blockIdx.y)] = broken ? -1 : best.index;
  }
  if (!job.arrives_last()) return;

  best = {0, int(job.sample.logits.columns)};
  if (threadIdx.x < job.pieces.count) {
    const Index slot = job.slot(threadIdx.x);
    best = {__ldcg(&job.buffers.keys[slot]), __ldcg(&job.buffers.indices[slot])};
  }
  broken = __syncthreads_or(best.index < 0) != 0;
  best = block_first<sample_threads>(best);
  if (threadIdx.x != 0) return;
  const Index row = job.row();
  const bool none = !broken && best.key == order_key(-C(INFINITY));
  if (broken || none) job.sample.status[row] |= broken ? logit_not_finite : all_tokens_excluded;
  job.sample.tokens[row] = broken || none ? Token(-1) : Token(best.index);
  job.buffers.rows[row] = {.draws = !broken && !none && job.sample.sampling.temperature > 0,
                           .largest = double(ordered_value(best.key))};
}

/// Finds a digit of the key of the last token to be kept, and with the last digit the cut: by counting tokens up to top_k
/// or by summing weights up to top_p of them all. A cut that there is already stays in force.
template <class C>
__global__ void __launch_bounds__(sample_threads) select_kernel(SampleJob<C> job, int digit_number, bool counting) {
  using Key = OrderKey<C>;
  using Histogram = WeightHistogram;
  constexpr int bins_per_thread = Histogram::bins / sample_threads;
  __shared__ Histogram histogram;
  __shared__ int reached, last_occupied;
  const KeyDigit<Key> digit(digit_number);
  SampleRow<C> state = job.buffers.rows[job.row()];
  if (!state.draws) return;

  const auto weight = [&](C logit) { return counting ? 1.0 : job.weight(state, logit); };
  unsigned long long* const sums = job.buffers.histograms + job.row() * SampleBuffers<C>::histogram_size;
  const C* const logits = job.logits();
  histogram.clear();
  for (Index start = job.first(); start < job.last(); start += Histogram::most_added) {
    __syncthreads();
    const Index end = min(start + Histogram::most_added, job.last());
    for (Index i = start + threadIdx.x; i < end; i += sample_threads) {
      const Key key = order_key(logits[i]);
      if (key > state.cut && digit.follows(key, state.prefix)) histogram.add(digit.of(key), weight(logits[i]));
    }
    __syncthreads();
    histogram.flush(sums);
  }
  if (!job.arrives_last()) return;

  // Bins from the highest down, neighbours in a thread.
  if (threadIdx.x == 0) reached = Histogram::bins, last_occupied = 0;
  double weights[bins_per_thread], sum = 0;
  for (int i = 0; i < bins_per_thread; ++i) {
    const int bin = Histogram::bins - 1 - (int(threadIdx.x) * bins_per_thread + i);
    weights[i] = Histogram::take(sums, bin);
    // The ties of the earlier cut that are kept.
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
  // Rounding may leave the sum a little below what was found to be reached with the digits before.
  const int place = reached < Histogram::bins ? reached : last_occupied;
  if (place / bins_per_thread != int(threadIdx.x)) return;
  state.before = earlier;
  for (int i = 0; i < place % bins_per_thread; ++i) state.before += weights[i];
  state.prefix |= static_cast<Key>(Histogram::bins - 1 - place) << digit.begin;
  if (digit.begin == 0) {
    const double each = weight(ordered_value(state.prefix));
    double ties = max(1.0, ceil((state.wanted - state.before) / each));
    // The fewest that reach it, past the rounding of the quotient.
    if (ties > 1 && state.before + (ties - 1) * each >= state.wanted) ties -= 1;
    if (state.before + ties * each < state.wanted) ties += 1;
    const Index most = state.prefix == state.cut ? state.ties : job.sample.logits.columns;
    state.ties = ties < double(most) ? Index(ties) : most;
    state.cut = state.prefix;
    state.prefix = 0;
  }
  job.buffers.rows[job.row()] = state;
}

/// Weights of a row's kept tokens, and the token at which their sum passes its random share.
template <class C>
__global__ void __launch_bounds__(sample_threads) draw_kernel(SampleJob<C> job) {
  constexpr int per_thread = sample_chunk / sample_threads;
  constexpr int nowhere = int(most_sampled_tokens);
  __shared__ double threshold, piece_before;
  __shared__ Index piece_ties;  // how many tokens at the cut are kept in the piece and behind it
  __shared__ int found, last_occupied, last_occupied_piece;
  const SampleRow<C> state = job.buffers.rows[job.row()];
  if (!state.draws) return;
  const C* const logits = job.logits();

  double sum = 0;
  Index ties = 0;
  for (Index i = job.first() + threadIdx.x; i < job.last(); i += sample_threads) {
    const auto key = order_key(logits[i]);
    if (key > state.cut) sum += job.weight(state, logits[i]);
    ties += key == state.cut ? 1 : 0;
  }
  sum = block_sum<sample_threads>(sum);
  ties = block_sum<sample_threads>(ties);
  if (threadIdx.x == 0) {
    job.buffers.sums[job.slot(blockIdx.y)] = sum;
    job.buffers.ties[job.slot(blockIdx.y)] = ties;
  }
  if (!job.arrives_last()) return;

  // The piece: a thread for each.
  const bool present = threadIdx.x < job.pieces.count;
  sum = present ? __ldcg(&job.buffers.sums[job.slot(threadIdx.x)]) : 0.0;
  ties = present ? __ldcg(&job.buffers.ties[job.slot(threadIdx.x)]) : Index{0};
  Index all_ties = 0;
  const Index ties_left = max(Index{0}, state.ties - block_sum_before<sample_threads>(ties, all_ties));
  if (ties_left > 0 && ties > 0) sum += double(min(ties, ties_left)) * job.weight(state, ordered_value(state.cut));
  double total = 0;
  const double before = block_sum_before<sample_threads>(sum, total);
  if (threadIdx.x == 0) {
    const Index row = job.row();
    Random random = sampling_random(job.sample.seed, job.sample.stream + std::uint64_t(row), job.sample.positions[row]);
    threshold = random.uniform() * total;
    job.sample.positions[row] = random.position();
    found = nowhere;
    last_occupied = last_occupied_piece = 0;
  }
  __syncthreads();
  if (sum > 0) {
    atomicMax(&last_occupied_piece, int(threadIdx.x));  // rounding may leave the sum a little below its share
    if (before + sum > threshold) atomicMin(&found, int(threadIdx.x));
  }
  __syncthreads();
  const int piece = found < nowhere ? found : last_occupied_piece;
  if (piece == int(threadIdx.x)) {
    piece_before = before;
    piece_ties = ties_left;
  }
  __syncthreads();

  // The token in it, chunk by chunk.
  const Index first = piece * job.pieces.length, last = min(first + job.pieces.length, job.sample.logits.columns);
  double chunk_before = piece_before;
  Index chunk_ties = piece_ties;
  if (threadIdx.x == 0) found = nowhere;
  __syncthreads();
  for (Index start = first; start < last && found == nowhere; start += sample_chunk) {
    const Index own = start + threadIdx.x * per_thread;
    int own_ties = 0, chunk_tie_count = 0;
    for (Index i = own; i < min(own + per_thread, last); ++i) own_ties += order_key(logits[i]) == state.cut ? 1 : 0;
    Index own_left = chunk_ties - block_sum_before<sample_threads>(own_ties, chunk_tie_count);
    double weights[per_thread], own_sum = 0, chunk_sum = 0;
    for (int i = 0; i < per_thread; ++i) {
      weights[i] = 0;
      if (own + i >= last) continue;
      const auto key = order_key(logits[own + i]);
      if (key > state.cut || (key == state.cut && own_left-- > 0)) weights[i] = job.weight(state, logits[own + i]);
      own_sum += weights[i];
    }
    double passed = chunk_before + block_sum_before<sample_threads>(own_sum, chunk_sum);
    for (int i = 0; i < per_thread; ++i) {
      passed += weights[i];
      if (weights[i] > 0) {
        atomicMax(&last_occupied, int(own) + i);
        if (passed > threshold) atomicMin(&found, int(own) + i);
      }
    }
    chunk_before += chunk_sum;
    chunk_ties -= chunk_tie_count;
    __syncthreads();
  }
  if (threadIdx.x == 0) job.sample.tokens[job.row()] = Token(found < nowhere ? found : last_occupied);
}

}  // namespace detail

/// Bytes of scratch that sample needs for `rows` of logits of type C, or whatever it is for void.
template <class C = void>
std::size_t sample_scratch(const Device& device, Index rows, Index vocabulary) {
  if constexpr (std::is_void_v<C>) {
    return std::max(sample_scratch<float>(device, rows, vocabulary), sample_scratch<double>(device, rows, vocabulary));
  } else {
    return bytes_of<detail::SampleBuffers<C>>(rows, vocabulary);
  }
}

/// A token for each row: one launch without temperature, two with it, and for each of top-k and top-p three more (six
/// where logits are double).
template <ComputeScalar C>
void sample(Device& device, const SampleTokens<C>& sample) {
  const Index rows = sample.logits.rows, vocabulary = sample.logits.columns;
  if (rows == 0) return;
  const Sampling& sampling = sample.sampling;
  Arena arena = sample.scratch;
  const detail::SampleJob<C> job{sample, detail::SampleBuffers<C>(arena, rows, vocabulary),
                                 detail::SamplePieces(vocabulary)};
  const bool by_count = sampling.top_k > 0 && sampling.top_k < vocabulary, by_weight = sampling.top_p < 1;
  const bool draws = sampling.temperature > 0;

  // Tickets and histograms, which lie together, begin empty and are left so by every launch.
  const auto* const begin = reinterpret_cast<const std::byte*>(job.buffers.tickets);
  const auto* const end = draws && (by_count || by_weight) ? reinterpret_cast<const std::byte*>(job.buffers.rows)
                                                           : reinterpret_cast<const std::byte*>(job.buffers.histograms);
  check(cudaMemsetAsync(job.buffers.tickets, 0, std::size_t(end - begin), device.stream()), "cudaMemsetAsync");

  const dim3 blocks(unsigned(rows), unsigned(job.pieces.count));
  detail::largest_logit_kernel<<<blocks, detail::sample_threads, 0, device.stream()>>>(job);
  check_launch("largest_logit_kernel");
  if (!draws) return;
  for (const bool counting : {true, false}) {
    if (!(counting ? by_count : by_weight)) continue;
    for (int digit = 0; digit < detail::KeyDigit<detail::OrderKey<C>>::count; ++digit) {
      detail::select_kernel<<<blocks, detail::sample_threads, 0, device.stream()>>>(job, digit, counting);
      check_launch("select_kernel");
    }
  }
  detail::draw_kernel<<<blocks, detail::sample_threads, 0, device.stream()>>>(job);
  check_launch("draw_kernel");
}

}  // namespace moe_mamba::cuda
