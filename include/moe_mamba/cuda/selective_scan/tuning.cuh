#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// How the selective scan is spread over a GPU.
///
/// A block takes 32 or 64 channels, one or two neighbours a lane; its warps share out the states, which stay in registers.
/// A scan of more states than that takes several passes, each a launch of its own that adds to the outputs. C is the type
/// of arithmetic.
namespace moe_mamba::cuda::detail {

/// `States` states over the warps of a block, `AtMost` of them in a pass.
template <int States, int AtMost>
struct ScanSpread {
  static constexpr int passes = ceiling_divide(States, AtMost);
  static constexpr int wanted = ceiling_divide(States, passes);
  static constexpr int warps = wanted > 16 ? 8 : wanted > 8 ? 4 : wanted > 4 ? 2 : 1;
  static constexpr int states = ceiling_divide(wanted, warps);  // of a thread
  static constexpr int pass = states * warps;
  static constexpr bool exact = passes * pass == States;
  static constexpr int padded = states > 2 ? ceiling_divide(states, 4) * 4
                                           : states;  // so that 16 bytes are loaded at once
};

/// What is done once for each element of a tile of `steps` steps and `width` channels: a thread takes up to four side by
/// side, of rows that lie `rows_apart` apart.
template <class Spread, int Channels, int Steps>
struct ScanTile : Spread {
  static constexpr int channels = Channels;  // of a thread, in what concerns states
  static constexpr int width = Channels * warp_size;
  static constexpr int threads = warp_size * Spread::warps;
  static constexpr int steps = Steps;
  static constexpr int elements = steps * width / threads;
  static constexpr int together = std::min(4, elements);
  static constexpr int rows = elements / together;
  static constexpr int rows_apart = threads * together / width;
  static constexpr int coefficients = Spread::warps * Spread::padded;  // of B or C, a step; a thread loads one of a row
  static constexpr int coefficient_rows_apart = threads / coefficients;
  static constexpr int coefficient_rows = ceiling_divide(steps, coefficient_rows_apart);
};

/// States of a pass of the forward kernel at most.
template <class C>
inline constexpr int scan_forward_pass = sizeof(C) == 4 ? 64 : 32;

/// Channels of a block, forward. Narrow blocks have half as many of float, and tiles of twice as many steps.
constexpr int scan_forward_width(std::size_t scalar_bytes, bool narrow = false) {
  return scalar_bytes == 4 && !narrow ? 2 * warp_size : warp_size;
}

template <class C, int States, bool Narrow>
struct ScanForwardTuning
    : ScanTile<ScanSpread<States, scan_forward_pass<C>>, scan_forward_width(sizeof(C), Narrow) / warp_size,
               ScanSpread<States, scan_forward_pass<C>>::warps == 1 ? 4
               : Narrow                                             ? 16
                                                                    : 8> {};

/// Whether there are narrow blocks: with more states their tiles would not fit into the shared memory of every block.
template <class C, int States>
inline constexpr bool scan_has_narrow = sizeof(C) == 4 && States <= 32;

/// Whether narrow blocks share the work out better: there are too few of `blocks` wide ones for each multiprocessor to get
/// as many as it is best given, `resident`, but so many that chunks would cost more.
constexpr bool scan_takes_narrow(int processors, Index resident, Index blocks) {
  const Index fitting = resident * processors;
  return 8 * blocks < 7 * fitting && 8 * blocks >= 3 * fitting;
}

/// Channels of a block on the way back.
constexpr int scan_backward_width(std::size_t scalar_bytes, Index states) {
  return scalar_bytes == 4 && states <= 16 ? 2 * warp_size : warp_size;
}

/// States of a pass of the backward kernel at most.
template <class C>
inline constexpr int scan_backward_pass = sizeof(C) == 4 ? 32 : 8;

template <class C, int States>
using ScanBackwardSpread = ScanSpread<States, scan_backward_pass<C>>;

/// The backward pass: each piece of scan_checkpoint_interval steps is run through in tiles of `steps`, of which `held` at
/// a time keep decays, states and what was read in registers. Shared memory is below the 99 KiB that a block can have on
/// every device. Two channels of a thread share what is read of B and C, and halve what is summed over lanes.
template <class C, int States>
struct ScanBackwardTuning : ScanTile<ScanBackwardSpread<C, States>, scan_backward_width(sizeof(C), States) / warp_size,
                                     ScanBackwardSpread<C, States>::warps == 1 ? 4 : 8> {
  using Spread = ScanBackwardSpread<C, States>;
  static constexpr int least_threads = sizeof(C) == 8 ? 64 : States <= 16 ? 256 : 512;  // of a multiprocessor
  static constexpr int blocks = std::max(1, least_threads / (warp_size * Spread::warps));
  static constexpr int piece = scan_checkpoint_interval;
  static constexpr int tiles = piece / ScanBackwardTuning::steps;
  static constexpr int held = 4;
  static constexpr int summed_steps = 2;                     // steps whose dB or dC is summed over lanes at once
  static constexpr int copies = Spread::padded > 1 ? 2 : 1;  // of B and C, see sum_swapped_over_lanes
  static_assert(ScanBackwardTuning::coefficient_rows == 1);
};

/// A long sequence of few channels is cut into chunks, so that every multiprocessor gets enough blocks. Chunks cost a
/// second run through the recurrence.
struct ScanChunking {
  Index length = 0;  // steps of a chunk, a multiple of scan_checkpoint_interval
  Index count = 0;   // chunks of a sequence
};

constexpr ScanChunking whole_scan(Index length) {
  return {std::max(Index{1}, scan_checkpoints(length)) * scan_checkpoint_interval, 1};
}

inline constexpr Index scan_shortest_chunk = 4;  // pieces

/// `blocks` is how many there are without chunks, of which a multiprocessor is best given `resident`. Chunks pay where it
/// would not get half as many.
constexpr ScanChunking scan_chunking(int processors, Index resident, Index blocks, Index length) {
  constexpr Index shortest = scan_shortest_chunk;
  const Index pieces = scan_checkpoints(length), fitting = resident * processors;
  Index chunk = pieces;
  if (blocks > 0 && blocks < fitting / 2) chunk = std::max(shortest, ceiling_divide(pieces, fitting / blocks));
  chunk = std::max(Index{1}, std::min(chunk, pieces));
  return {chunk * scan_checkpoint_interval, std::max(Index{1}, ceiling_divide(pieces, chunk))};
}

/// What sequences times chunks come to at most, for a batch and any smaller or shorter one: fewer sequences are cut into more
/// chunks.
struct ScanParts {
  Index chunked = 0;  // where there is more than one chunk; 0: there never is
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

}  // namespace moe_mamba::cuda::detail
