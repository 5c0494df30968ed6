#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/cuda/warp.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

/// How the selective scan is spread over a GPU.
///
/// A block takes 32 channels, one a lane; its warps share out the states, which stay in registers. A scan of more states
/// than that takes several passes, each a launch of its own that adds to the outputs.
namespace moe_mamba::cuda::detail {

constexpr Index ceiling_of(Index a, Index b) { return (a + b - 1) / b; }
constexpr int ceiling_of(int a, int b) { return (a + b - 1) / b; }

/// `States` states over the warps of a block, `AtMost` of them in a pass.
template <int States, int AtMost>
struct ScanSpread {
  static constexpr int passes = ceiling_of(States, AtMost);
  static constexpr int wanted = ceiling_of(States, passes);
  static constexpr int warps = wanted > 16 ? 8 : wanted > 8 ? 4 : wanted > 4 ? 2 : 1;
  static constexpr int states = ceiling_of(wanted, warps);  // of a thread
  static constexpr int pass = states * warps;
  static constexpr bool exact = passes * pass == States;
  static constexpr int padded = states > 2 ? (states + 3) / 4 * 4 : states;  // so that 16 bytes are loaded at once
};

/// The forward pass: time goes by in tiles of `steps` steps, of which a thread loads and concludes `rows`.
template <class C, int States>
struct ScanForwardTuning : ScanSpread<States, 64> {
  using Spread = ScanSpread<States, 64>;
  static constexpr int threads = warp_size * Spread::warps;
  static constexpr int steps = std::min(Spread::warps == 8 && sizeof(C) == 8 ? 8 : 16, 4 * Spread::warps);
  static constexpr int rows = steps / Spread::warps;
  static constexpr int coefficients = ceiling_of(2 * Spread::pass, warp_size);  // of B and C that a lane loads of a row
};

/// Channels of a block on the way back.
constexpr int scan_backward_width(std::size_t scalar_bytes, Index states) {
  return scalar_bytes == 4 && states <= 16 ? 2 * warp_size : warp_size;
}

/// The backward pass: each piece of scan_checkpoint_interval steps is run through in tiles of `steps`, whose states
/// stay in registers. Shared memory is below the 99 KiB that a block can have on every device.
template <class C, int States>
struct ScanBackwardTuning : ScanSpread<States, sizeof(C) == 4 ? 32 : 16> {
  using Spread = ScanSpread<States, sizeof(C) == 4 ? 32 : 16>;
  static constexpr int width = scan_backward_width(sizeof(C), States);
  static constexpr int threads = width * Spread::warps;
  static constexpr int blocks = sizeof(C) == 4 ? 512 / threads : 1;  // of a multiprocessor at least
  static constexpr int piece = scan_checkpoint_interval;
  static constexpr int steps = 8;
  static constexpr int tiles = piece / steps;
  static constexpr int rows = steps / Spread::warps;          // of a tile, for a thread
  static constexpr int summed_steps = 4;                      // steps whose dB and dC are summed over lanes at once
  static constexpr int sums = summed_steps * Spread::padded;  // of either
  static constexpr int elements =
      ceiling_of(2 * steps * Spread::pass, threads);  // of dB and dC of a tile, for a thread
  static_assert(steps * Spread::pass <= threads, "a thread loads one element of C of a tile");
};

/// A long sequence of few channels is cut into chunks, so that every multiprocessor gets enough blocks. Chunks cost a
/// second run through the recurrence.
struct ScanChunking {
  Index length = 0;  // steps of a chunk, a multiple of scan_checkpoint_interval
  Index count = 0;   // chunks of a sequence
};

/// `blocks` is how many there are without chunks, of which a multiprocessor is best given `resident`. Chunks pay where it
/// would not get half as many.
constexpr ScanChunking scan_chunking(int processors, Index resident, Index blocks, Index length) {
  constexpr Index shortest = 2;
  const Index pieces = scan_checkpoints(length), fitting = resident * processors;
  Index chunk = pieces;
  if (blocks > 0 && blocks < fitting / 2) chunk = std::max(shortest, ceiling_of(pieces, fitting / blocks));
  chunk = std::max(Index{1}, std::min(chunk, pieces));
  return {chunk * scan_checkpoint_interval, std::max(Index{1}, ceiling_of(pieces, chunk))};
}

}  // namespace moe_mamba::cuda::detail
