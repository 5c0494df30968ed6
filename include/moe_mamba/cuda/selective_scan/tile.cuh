#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/sequences.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The tuning constants of the selective scan, the indices of a thread, and the layout of tiles in shared memory.
///
///   state    a warp has some states of its channels, a thread some of them, in registers; more states than a block
///            holds take several passes, each a launch that adds to the outputs
///   channel  a block has 32 or 64 neighbouring channels, a lane one or two of them
///   tile     the steps whose inputs a block stages in shared memory at a time
///   segment  the steps between two checkpoints, scan_checkpoint_interval
///   chunk    the segments of a sequence that a block goes through, all of them where there are enough channels
///
/// C is the compute type unless it is said to be the type of activations.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The distribution of `States` states over the warps of a block, at most `Most` in a pass.
template <int States, int Most>
struct ScanSpread {
  static constexpr int passes = ceiling_divide(States, Most);
  static constexpr int wanted = ceiling_divide(States, passes);
  static constexpr int warps = wanted > 16 ? 8 : wanted > 8 ? 4 : wanted > 4 ? 2 : 1;
  static constexpr int states = ceiling_divide(wanted, warps);  // per thread
  static constexpr int pass = states * warps;
  static constexpr bool exact = passes * pass == States;
  static constexpr int padded = states > 2 ? ceiling_divide(states, 4) * 4 : states;  // whole vectors
};

/// Element-wise work on a tile of `Steps` steps and `width` channels: a thread takes a vector of up to four channels in
/// every row_step-th row.
template <class Spread, int Channels, int Steps>
struct ScanTile : Spread {
  static constexpr int channels = Channels;  // per thread, for its states
  static constexpr int width = Channels * warp_size;
  static constexpr int threads = warp_size * Spread::warps;
  static constexpr int steps = Steps;
  static constexpr int elements = steps * width / threads;
  static constexpr int vector = std::min(4, elements);
  static constexpr int rows = elements / vector;
  static constexpr int row_step = threads * vector / width;
  static constexpr int coefficients = Spread::warps * Spread::padded;  // of B or C per step
  static constexpr int coefficient_row_step = threads / coefficients;
  static constexpr int coefficient_rows = ceiling_divide(steps, coefficient_row_step);
};

/// The most states of a pass, forward.
template <class C>
inline constexpr int scan_forward_pass = sizeof(C) == 4 ? 64 : 32;

/// Channels per block, forward. In float, narrow blocks have half as many, and tiles of twice as many steps.
constexpr int scan_forward_width(std::size_t scalar_bytes, bool narrow = false) {
  return scalar_bytes == 4 && !narrow ? 2 * warp_size : warp_size;
}

template <class C, int States, bool Narrow>
struct ScanForwardTuning
    : ScanTile<ScanSpread<States, scan_forward_pass<C>>, scan_forward_width(sizeof(C), Narrow) / warp_size,
               ScanSpread<States, scan_forward_pass<C>>::warps == 1 ? 4
               : Narrow                                             ? 16
                                                                    : 8> {};

/// The preferred number of blocks per multiprocessor, forward and backward.
template <class C>
inline constexpr Index scan_forward_resident = sizeof(C) == 4 ? 2 : 4;
inline constexpr Index scan_backward_resident = 2;

/// Whether there are narrow blocks: with more states their tiles would not fit in 48 KiB of shared memory.
template <class C, int States>
inline constexpr bool scan_has_narrow = sizeof(C) == 4 && States <= 32;

/// Whether narrow blocks balance the load better: there are `blocks` wide ones, fewer than `resident` per
/// multiprocessor, but not so few that chunks would cost less.
constexpr bool scan_takes_narrow(int processors, Index resident, Index blocks) {
  const Index fitting = resident * processors;
  return 8 * blocks < 7 * fitting && 8 * blocks >= 3 * fitting;
}

/// Channels per block, backward.
constexpr int scan_backward_width(std::size_t scalar_bytes, Index states) {
  return scalar_bytes == 4 && states <= 16 ? 2 * warp_size : warp_size;
}

/// The most states of a pass, backward.
template <class C>
inline constexpr int scan_backward_pass = sizeof(C) == 4 ? 32 : 8;

template <class C, int States>
using ScanBackwardSpread = ScanSpread<States, scan_backward_pass<C>>;

/// Each segment is processed in tiles, and each tile in groups of `held` steps, whose decays, states and inputs are
/// held in registers. Shared memory stays below the 99 KiB that a block can have on every device. A thread's two
/// channels share the loads of B and C, and halve the sums over lanes.
template <class C, int States>
struct ScanBackwardTuning : ScanTile<ScanBackwardSpread<C, States>, scan_backward_width(sizeof(C), States) / warp_size,
                                     ScanBackwardSpread<C, States>::warps == 1 ? 4 : 8> {
  using Spread = ScanBackwardSpread<C, States>;
  static constexpr int least_threads = sizeof(C) == 8 ? 64 : States <= 16 ? 256 : 512;  // per multiprocessor
  static constexpr int blocks = std::max(1, least_threads / (warp_size * Spread::warps));
  static constexpr int segment = scan_checkpoint_interval;
  static constexpr int held = 4;  // 8 leave no registers for prefetching and take 1.2 times as long
  static constexpr int groups = ScanBackwardTuning::steps / held;  // per tile
  static constexpr int summed_steps = 2;                     // steps whose dB or dC are summed over lanes at a time
  static constexpr int copies = Spread::padded > 1 ? 2 : 1;  // of B and C, see sum_swapped_over_lanes
  static_assert(ScanBackwardTuning::coefficient_rows == 1);
};

/// How a sequence is divided into chunks, to give every multiprocessor enough blocks if there are few channels. Chunks
/// cost a second evaluation of the recurrence.
struct ScanChunking {
  Index length = 0;  // steps of a chunk, a multiple of scan_checkpoint_interval
  Index count = 0;   // chunks of a sequence
};

constexpr ScanChunking whole_scan(Index length) {
  return {std::max(Index{1}, scan_checkpoints(length)) * scan_checkpoint_interval, 1};
}

inline constexpr Index scan_shortest_chunk = 4;  // segments

/// `blocks` is the number of blocks without chunks, `resident` the preferred number per multiprocessor. Chunks pay off
/// if a multiprocessor would get fewer than half as many.
constexpr ScanChunking scan_chunking(int processors, Index resident, Index blocks, Index length) {
  const Index segments = scan_checkpoints(length), fitting = resident * processors;
  Index chunk = segments;
  if (blocks > 0 && blocks < fitting / 2) {
    chunk = std::max(scan_shortest_chunk, ceiling_divide(segments, fitting / blocks));
  }
  chunk = std::max(Index{1}, std::min(chunk, segments));
  return {chunk * scan_checkpoint_interval, std::max(Index{1}, ceiling_divide(segments, chunk))};
}

/// An entry of a packed sequence; `block` counts chunks.
struct ScanSequence {
  Index row, length;
  unsigned block;
  unsigned segments;  // per chunk
  Index checkpoint;   // of its first segment
};

/// The chunks of a launch, numbered sequence after sequence.
struct ScanChunks {
  LaunchSequences<ScanSequence> sequences;
  Index length = 0;  // steps per chunk, if sequences are equally long
  Index parts = 0;   // chunks of all sequences

  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr Index length_of(Index sequence) const {
    return sequences.is_packed<kind>() ? Index{sequences.packed[sequence].segments} * scan_checkpoint_interval : length;
  }
  /// The index of a sequence's chunk among all chunks.
  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr Index part(Index sequence, Index chunk) const {
    return (sequences.is_packed<kind>() ? sequences.packed[sequence].block : sequence * sequences.blocks) + chunk;
  }
  /// The checkpoint before step `first` of a sequence.
  template <SequenceKind kind>
  MOE_MAMBA_HOST_DEVICE constexpr Index checkpoint(Index sequence, Index first) const {
    const Index before = sequences.is_packed<kind>()
                             ? sequences.packed[sequence].checkpoint
                             : sequence * ceiling_divide(sequences.length, scan_checkpoint_interval);
    return before + first / scan_checkpoint_interval;
  }
  /// Chunks of a sequence.
  MOE_MAMBA_HOST_DEVICE constexpr Index count_of(Index sequence) const {
    if (sequences.packed == nullptr) return sequences.blocks;
    const Index end = sequence + 1 < sequences.count ? sequences.packed[sequence + 1].block : parts;
    return end - sequences.packed[sequence].block;
  }
};

/// Upper bound on sequences times chunks, for a batch and any smaller or shorter one: fewer sequences are divided into
/// more chunks.
struct ScanParts {
  Index chunked = 0;  // with more than one chunk; 0: never more than one
  Index all = 0;
};

constexpr ScanParts most_scan_parts(int processors, Index resident, Index groups, Index batch, Index length) {
  const Index fitting = resident * processors, most = ceiling_divide(scan_checkpoints(length), scan_shortest_chunk);
  ScanParts parts{0, batch};
  for (Index b = 1; b <= batch && groups > 0 && b * groups < fitting / 2; ++b) {
    const Index count = std::min(fitting / (b * groups), most);
    if (count > 1) parts.chunked = std::max(parts.chunked, b * count);
  }
  parts.all = std::max(parts.all, parts.chunked);
  return parts;
}

/// A thread's part of a scan. Blocks are numbered by sequence, chunk, and group of `width` channels.
///
/// The states of a thread are `Tuning::channels` channels by `Tuning::states` states: channel(k), state0 + n. Its
/// element-wise work is on rows row(), row() + row_step, … of a tile, the vector of channels from column() on; it loads
/// one element of B and of C in rows coefficient_row(), coefficient_row() + coefficient_row_step, ….
template <class Tuning, int States, SequenceKind kind>
struct ThreadTile {
  static constexpr int threads = Tuning::threads, row_step = Tuning::row_step;

  int lane, warp;
  Index channel0;  // the first of the block
  Index sequence, chunk;
  Index begin, end;  // steps of the chunk
  Index channels;    // of the scan
  int first_state;   // the first of the pass
  int state0;        // the first of the thread
  int present;       // elements of its vector that are existing channels

  __device__ __forceinline__ ThreadTile(Index channels_, const ScanChunks& chunks, int first_state_)
      : lane(lane_index()), warp(warp_index()) {
    const Index groups = ceiling_divide(channels_, Tuning::width), part = blockIdx.x / groups;
    channel0 = (blockIdx.x - part * groups) * Tuning::width;
    const SequenceBlock place = chunks.sequences.at<kind>(static_cast<unsigned>(part));
    sequence = place.sequence;
    chunk = place.block;
    const Index length = chunks.length_of<kind>(sequence);
    begin = chunk * length;
    end = min(begin + length, place.length);
    channels = channels_;
    first_state = first_state_;
    state0 = first_state + warp * Tuning::states;
    present = static_cast<int>(max(Index{0}, min(Index{Tuning::vector}, channels - vector_channel())));
  }

  __device__ __forceinline__ bool first_pass() const { return Tuning::passes == 1 || first_state == 0; }
  __device__ __forceinline__ bool last_pass() const {
    return Tuning::passes == 1 || first_state + Tuning::pass >= States;
  }

  __device__ __forceinline__ Index channel(int k) const { return channel0 + lane * Tuning::channels + k; }
  __device__ __forceinline__ bool has(int k, int n) const {
    return channel(k) < channels && (Tuning::padded == Tuning::states || n < Tuning::states) &&
           (Tuning::exact || state0 + n < States);
  }
  /// The offset of a state in a running state, a checkpoint or a carry: (N, E).
  __device__ __forceinline__ Index state_offset(int k, int n) const { return (state0 + n) * channels + channel(k); }
  /// The offset of a state in a_log: (E, N).
  __device__ __forceinline__ Index parameter_offset(int k, int n) const { return channel(k) * States + state0 + n; }

  static __device__ __forceinline__ int row() {
    return static_cast<int>(threadIdx.x) / (Tuning::width / Tuning::vector);
  }
  static __device__ __forceinline__ int column() {
    return static_cast<int>(threadIdx.x) % (Tuning::width / Tuning::vector) * Tuning::vector;
  }
  __device__ __forceinline__ Index vector_channel() const { return channel0 + column(); }

  /// Calls each(vectorised, i, present) for the thread's rows i of a tile of which `steps` exist; `present` is the
  /// number of existing elements of its vector.
  template <class Each>
  __device__ __forceinline__ void for_rows(bool vectorised, int steps, const Each& each) const {
    const auto loop = [&](auto is_vectorised) {
#pragma unroll
      for (int i = 0; i < Tuning::rows; ++i) each(is_vectorised, i, row() + i * Tuning::row_step < steps ? present : 0);
    };
    if (vectorised) {
      loop(std::true_type{});
    } else {
      loop(std::false_type{});
    }
  }

  static __device__ __forceinline__ int coefficient_row() {
    return static_cast<int>(threadIdx.x) / Tuning::coefficients;
  }
  /// The warp whose states the thread's coefficient belongs to, and its index among these.
  static __device__ __forceinline__ int coefficient_warp() {
    return static_cast<int>(threadIdx.x) % Tuning::coefficients / Tuning::padded;
  }
  static __device__ __forceinline__ int coefficient_index() { return static_cast<int>(threadIdx.x) % Tuning::padded; }
  __device__ __forceinline__ Index coefficient_state() const {
    return first_state + coefficient_warp() * Tuning::states + coefficient_index();
  }
  __device__ __forceinline__ bool has_coefficient() const {
    return coefficient_index() < Tuning::states && (Tuning::exact || coefficient_state() < States);
  }
};

/// The inputs of the recurrence for a step and channel: Δ and Δ u or, in the summary of a backward chunk, Δ and dy
/// silu(z).
template <class C>
struct alignas(2 * sizeof(C)) ScanInput {
  C delta, input;
};

/// Shared memory of a block, forward: two tiles (double buffering), one being computed and one being staged.
template <class C, class Tuning>
struct ScanStorage {
  using StateVector = Vector<C, Tuning::padded>;
  using ChannelVector = Vector<C, Tuning::channels>;
  using ElementVector = Vector<C, Tuning::vector>;

  struct Tile {
    alignas(16) ScanInput<C> inputs[Tuning::steps][Tuning::width];
    StateVector b[Tuning::steps][Tuning::warps], c[Tuning::steps][Tuning::warps];
    alignas(16) C outputs[Tuning::warps][Tuning::steps][Tuning::width];  // Σ_n C h over the states of a warp
  };
  Tile tiles[2];
};

/// Shared memory of a block, backward. Inputs and B are those of a segment, the rest those of a tile.
template <class C, class Tuning>
struct ScanBackwardStorage {
  using StateVector = Vector<C, Tuning::padded>;
  using ChannelVector = Vector<C, Tuning::channels>;
  using ElementVector = Vector<C, Tuning::vector>;

  ScanInput<C> inputs[Tuning::segment][Tuning::width];                                       // Δ and Δ u
  StateVector entry[Tuning::segment / Tuning::held - 1][Tuning::channels][Tuning::threads];  // states before each group
  StateVector b[Tuning::segment][Tuning::copies][Tuning::warps];
  StateVector c[Tuning::steps][Tuning::copies][Tuning::warps];
  alignas(16) C dp[Tuning::steps][Tuning::width];  // dy silu(z)
  /// Sums over the states of a warp: Σ_n C h, Σ_n g B and Σ_n g rate decay h.
  alignas(16) C sums[3][Tuning::warps][Tuning::steps][Tuning::width];
};

/// The delta of a step past the end: Δ = softplus(-∞) = 0, which leaves states unchanged.
template <class C>
inline constexpr C no_step = -std::numeric_limits<C>::infinity();

/// Stages Δ = softplus(delta + bias) of a vector of channels, each with input(j, Δ). C is the type of activations.
template <class C, int count, class Input>
__device__ __forceinline__ void stage_inputs(const Vector<compute_t<C>, count>& delta,
                                             const Vector<compute_t<C>, count>& bias, ScanInput<compute_t<C>>& to,
                                             const Input& input) {
  using T = compute_t<C>;
  Vector<T, 2 * count> inputs;
#pragma unroll
  for (int j = 0; j < count; ++j) {
    const T step = softplus_of<C>(delta.values[j] + bias.values[j]);
    inputs.values[2 * j] = step;
    inputs.values[2 * j + 1] = input(j, step);
  }
  as_vector<Vector<T, 2 * count>>(to) = inputs;
}

/// The sums of the passes, which the last one rounds; see OutputCursor. C is the type of activations.
template <class C, int outputs>
struct ScanPassSums {
  MatrixView<compute_t<C>> of[outputs];  // (T, E) each, or null if passes add to the outputs themselves

  static constexpr bool separate(Index passes) { return passes > 1 && !std::is_same_v<C, compute_t<C>>; }

  ScanPassSums(Arena& arena, Index tokens, Index channels, Index passes) {
    if (!separate(passes)) return;
    for (auto& sums : of) sums = arena.rows<compute_t<C>>(tokens, channels);
  }
};

/// The values propagated across the chunks of a sequence.
template <class C>
struct ScanCarry {
  ScanChunks chunks;
  C* states = nullptr;      // (parts, N, E): a chunk's final states from zero, then its initial states
  C* delta_sums = nullptr;  // (parts, E): Σ_t Δ_t

  /// `parts`: chunks of all sequences, or 0 if each has a single one.
  ScanCarry(Arena& arena, const ScanChunks& cut, Index parts, Index channels, Index count) : chunks(cut) {
    if (parts == 0) return;
    states = arena.take<C>(parts * count * channels);
    delta_sums = arena.take<C>(parts * channels);
  }
};

/// The partial sums of a backward pass's blocks, for the launches that add them up.
template <class C>
struct ScanPartialSums {
  C* db;      // (groups of channels, T, N)
  C* dc;      // (groups of channels, T, N)
  C* da_log;  // (parts, E, N)
  C* dd;      // (parts, E)
  C* dbias;   // (parts, E)

  /// `parts`: chunks of all sequences.
  ScanPartialSums(Arena& arena, Index tokens, Index parts, Index channels, Index states) {
    const Index groups = ceiling_divide(channels, Index{scan_backward_width(sizeof(C), states)});
    db = arena.take<C>(groups * tokens * states);
    dc = arena.take<C>(groups * tokens * states);
    da_log = arena.take<C>(parts * channels * states);
    dd = arena.take<C>(parts * channels);
    dbias = arena.take<C>(parts * channels);
  }
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
