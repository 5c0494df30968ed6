#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/put_sequences.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/single_step.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/selective_scan/backward.cuh"
#include "moe_mamba/cuda/selective_scan/forward.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on a GPU: launches, scratch memory, and the small kernels around those of forward.cuh and
/// backward.cuh.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class C, class S, int States, bool narrow_blocks, bool summary, SequenceKind kind>
__global__ void __launch_bounds__(ScanForwardTuning<compute_t<C>, States, narrow_blocks>::threads)
    scan_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan,
                const __grid_constant__ ScanCarry<compute_t<C>> carry, const __grid_constant__ ScanPassSums<C, 1> sums,
                int first_state, bool vectorised) {
  using Forward = ScanForward<C, S, States, narrow_blocks, summary, kind>;
  static_assert(sizeof(typename Forward::Storage) <= 48 * 1024, "more shared memory than a block has by default");
  __shared__ typename Forward::Storage storage;
  Forward(scan, carry, sums, first_state, vectorised, storage).run();
}

/// Propagates states across the chunks of a sequence: a chunk's final states from zero are replaced by its initial
/// states, with h ← 2^(rate Σ_t Δ_t) h + own. With `backward`, the gradients with respect to states, from the last
/// chunk to the first. One thread per state and channel.
template <class C, class S, int States, bool backward>
__global__ void __launch_bounds__(128)
    scan_carry_kernel(ScanCarry<C> carry, const S* a_log, StateView<const C> initial, Index batch, Index channels) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= batch * States * channels) return;
  const Index channel = index % channels, n = index / channels % States, sequence = index / channels / States;
  const C rate = decay_rate<C>(a_log[channel * States + n]);
  C h = initial.data == nullptr ? C(0) : initial.data[sequence * initial.stride + n * channels + channel];
  const ScanChunks& chunks = carry.chunks;
  const Index count = chunks.count_of(sequence), first_part = chunks.part<SequenceKind::either>(sequence, 0);
  constexpr int prefetched = 8;  // chunks whose values are prefetched
  for (Index first = 0; first < count; first += prefetched) {
    C own[prefetched], sums[prefetched];
    const auto chunk = [&](int i) { return first_part + (backward ? count - 1 - first - i : first + i); };
    const auto state = [&](int i) { return carry.states + (chunk(i) * States + n) * channels + channel; };
#pragma unroll
    for (int i = 0; i < prefetched; ++i) {
      if (first + i >= count) break;
      own[i] = *state(i);
      sums[i] = carry.delta_sums[chunk(i) * channels + channel];
    }
#pragma unroll
    for (int i = 0; i < prefetched; ++i) {
      if (first + i >= count) break;
      *state(i) = h;
      h = fma(power_of_two(rate * sums[i]), h, own[i]);
    }
  }
}

/// States that a thread of a single step loads and holds at a time.
template <int States>
inline constexpr int step_group = States <= 16       ? States
                                  : States % 16 == 0 ? 16
                                  : States % 8 == 0  ? 8
                                  : States % 4 == 0  ? 4
                                                     : 1;

/// A single step of each sequence (if packed, of those with just one step): one independent thread per channel of a
/// sequence, which takes its states in turn. With `vectorised`, rows of a_log, b and c are loaded in vectors.
template <class C, class S, int States, bool vectorised>
__global__ void __launch_bounds__(StepGrid::most_threads, sizeof(compute_t<C>) == 4 ? 4 : 2)
    scan_step_kernel(const __grid_constant__ SelectiveScan<C, S, States> scan,
                     LaunchSequences<ScanSequence> sequences) {
  await_stream();
  release_stream();
  using T = compute_t<C>;
  constexpr int group = step_group<States>;
  const Index channels = scan.u.columns, sequence = StepGrid::sequence(), channel = StepGrid::channel();
  if (sequence >= scan.shape.batch || channel >= channels) return;
  Index row = sequence, checkpoint = sequence;
  if (sequences.packed != nullptr) {
    if (sequences.packed[sequence].length != 1) return;
    row = sequences.packed[sequence].row, checkpoint = sequences.packed[sequence].checkpoint;
  }
  T* const state = scan.state.data == nullptr ? nullptr : scan.state.data + sequence * scan.state.stride + channel;
  const S* const a_log = scan.a_log + channel * States;
  const C* const b = scan.b.data + row * scan.b.stride;
  const C* const c = scan.c.data + row * scan.c.stride;
  const auto at = [&](const MatrixView<const C>& rows) { return rows.data[row * rows.stride + channel]; };
  T h[group];
  S a_logs[group];
  C bs[group], cs[group];
  // Everything is loaded before the first use: nothing is converted here, and the first operands of arithmetic are
  // loaded last, after stores; otherwise the compiler would wait for them before issuing other loads.
  const auto begin = [&](int first) {
#pragma unroll
    for (int i = 0; i < group; ++i) h[i] = state == nullptr ? T(0) : state[(first + i) * channels];
    load_array<vectorised>(a_log + first, a_logs);
    load_array<vectorised>(b + first, bs), load_array<vectorised>(c + first, cs);
    if (scan.checkpoints != nullptr) {
      T* const saved = scan.checkpoints + (checkpoint * States + first) * channels + channel;
#pragma unroll
      for (int i = 0; i < group; ++i) saved[i * channels] = h[i];
    }
  };
  begin(0);
  const C u_loaded = at(scan.u), delta_loaded = at(scan.delta), z_loaded = at(scan.z);
  const S bias = scan.delta_bias[channel], d = scan.d[channel];
  const T u = static_cast<T>(u_loaded);
  const T delta = softplus_of<C>(static_cast<T>(delta_loaded) + static_cast<T>(bias));
  T sum = static_cast<T>(d) * u;
  for (int first = 0; first < States; first += group) {
    if (first > 0) begin(first);
#pragma unroll
    for (int i = 0; i < group; ++i) {
      const T decay = power_of_two(delta * decay_rate<T>(a_logs[i]));
      h[i] = fma(decay, h[i], delta * u * static_cast<T>(bs[i]));
      sum = fma(static_cast<T>(cs[i]), h[i], sum);
    }
    if (state != nullptr) {
#pragma unroll
      for (int i = 0; i < group; ++i) state[(first + i) * channels] = h[i];
    }
  }
  scan.y.data[row * scan.y.stride + channel] = stored_as<C>(sum * silu_of<C>(static_cast<T>(z_loaded)));
}

/// Blocks of a launch over whole sequences.
template <class C>
Index scan_blocks(Index batch, Index channels) {
  return batch * ceiling_divide(channels, Index{scan_forward_width(sizeof(compute_t<C>))});
}

template <class C, int States>
bool scan_takes_narrow(const Device& device, Index blocks) {
  return scan_has_narrow<compute_t<C>, States> &&
         scan_takes_narrow(device.processors(), scan_forward_resident<compute_t<C>>, blocks);
}

/// Bytes of scratch that selective_scan and selective_scan_backward use. `carried`: chunks whose states are propagated.
template <class C>
std::size_t scan_forward_bytes(Index tokens, Index carried, Index channels, Index states) {
  using T = compute_t<C>;
  Arena counting;
  (void)ScanCarry<T>(counting, {}, carried, channels, states);
  (void)ScanPassSums<C, 1>(counting, tokens, channels, ceiling_divide(states, Index{scan_forward_pass<T>}));
  return counting.used();
}
template <class C>
std::size_t scan_backward_bytes(Index tokens, Index parts, Index carried, Index channels, Index states) {
  using T = compute_t<C>;
  Arena counting;
  (void)ScanPartialSums<T>(counting, tokens, parts, channels, states);
  (void)ScanCarry<T>(counting, {}, carried, channels, states);
  (void)ScanPassSums<C, 3>(counting, tokens, channels, ceiling_divide(states, Index{scan_backward_pass<T>}));
  return counting.used();
}

/// Sums over packed sequences that determine the scratch of a launch over them.
struct ScanLoad {
  Index tokens, parts;
  bool has_carry;
  constexpr Index carried() const { return has_carry ? parts : 0; }
  friend constexpr ScanLoad operator+(const ScanLoad& a, const ScanLoad& b) {
    return {a.tokens + b.tokens, a.parts + b.parts, a.has_carry || b.has_carry};
  }
};

/// Calls call(part, chunks, carried) for a scan of equally long sequences, or for groups of packed ones whose
/// bytes_of(load) fit in the scan's scratch. chunking_of(batch, length) divides sequences into chunks, a packed one as
/// if it were alone. Sequences shorter than `shortest` steps get no chunks.
template <class Scan, class ChunkingOf, class BytesOf, class Call>
void for_scan_launches(Device& device, const Scan& scan, std::size_t scratch_bytes, Index shortest,
                       const ChunkingOf& chunking_of, const BytesOf& bytes_of, const Call& call) {
  using Table = SequenceTable<ScanSequence>;
  const auto load_of = [&](Index length) {
    const ScanChunking chunking = chunking_of(1, length);
    return ScanLoad{length, length < shortest ? 0 : chunking.count, chunking.count > 1};
  };
  const auto fits = [&](const ScanLoad& load) { return table_bytes<ScanSequence> + bytes_of(load) <= scratch_bytes; };
  auto* checkpoints = scan.checkpoints;
  for_sequence_groups(scan.shape, Table::most, load_of, fits, [&](const SequenceRun& run) {
    if (run.shape.tokens() == 0) return;
    Scan part = scan.slice(run);
    part.checkpoints = checkpoints;
    if (checkpoints != nullptr) checkpoints += scan_checkpoints(run.shape) * Scan::states * scan.u.columns;
    if (run.shape.lengths == nullptr) {
      const Index batch = run.shape.batch, length = run.shape.length;
      const ScanChunking chunking = chunking_of(batch, length);
      const Index parts = length < shortest ? 0 : batch * chunking.count;
      call(part,
           ScanChunks{{.length = length, .blocks = static_cast<unsigned>(chunking.count)}, chunking.length, parts},
           chunking.count > 1 ? parts : 0);
      return;
    }
    ScanLoad load{};
    Index checkpoint = 0;
    const Table table(run.shape, [&](ScanSequence& sequence) {
      const ScanLoad own = load_of(sequence.length);
      load = load + own;
      sequence.segments = static_cast<unsigned>(chunking_of(1, sequence.length).length / scan_checkpoint_interval);
      sequence.checkpoint = checkpoint;
      checkpoint += scan_checkpoints(sequence.length);
      return own.parts;
    });
    const LaunchSequences<ScanSequence> sequences = put_sequences(device, table, part.scratch);
    call(part, ScanChunks{sequences, 0, load.parts}, load.carried());
  });
}

/// Sequences of a single step each, or those among packed ones.
template <class C, class S, int States>
void launch_scan_steps(Device& device, const SelectiveScan<C, S, States>& scan,
                       const LaunchSequences<ScanSequence>& sequences) {
  constexpr int group = step_group<States>;
  constexpr int of_states = vector_divisor<S, group>, of_coefficients = vector_divisor<C, group>;
  const bool vectorised = can_vectorise<of_states>(scan.a_log, States) &&
                          can_vectorise<of_coefficients>(scan.b.data, scan.b.stride) &&
                          can_vectorise<of_coefficients>(scan.c.data, scan.c.stride);
  const StepGrid grid(device, scan.shape.batch, scan.u.columns);
  const auto kernel = vectorised ? scan_step_kernel<C, S, States, true> : scan_step_kernel<C, S, States, false>;
  launch_dependent(device, kernel, grid.blocks, grid.threads, 0, scan, sequences);
}

/// Sequences of several steps each, or those among packed ones.
template <class C, class S, int States>
void launch_scan(Device& device, const SelectiveScan<C, S, States>& scan, const ScanChunks& chunks, Index carried) {
  using T = compute_t<C>;
  using Tuning = ScanForwardTuning<T, States, false>;
  const Index channels = scan.u.columns, blocks = scan_blocks<C>(chunks.parts, channels);
  const bool vectorised = can_vectorise<Tuning::vector>(scan.u, scan.delta, scan.z, scan.y);
  Arena arena = scan.scratch;
  const ScanCarry<T> carry(arena, chunks, carried, channels, States);
  const ScanPassSums<C, 1> sums(arena, scan.shape.tokens(), channels, Tuning::passes);
  if constexpr (scan_has_narrow<T, States>) {
    // Packed sequences have wide blocks only, to save compiling another kernel.
    if (chunks.sequences.packed == nullptr && carried == 0 && scan_takes_narrow<C, States>(device, blocks)) {
      using NarrowTuning = ScanForwardTuning<T, States, true>;
      static_assert(NarrowTuning::vector <= Tuning::vector && NarrowTuning::passes == Tuning::passes);
      const auto grid = static_cast<unsigned>(chunks.parts * ceiling_divide(channels, Index{NarrowTuning::width}));
      for (int pass = 0; pass < Tuning::passes; ++pass) {
        scan_kernel<C, S, States, true, false, SequenceKind::equal>
            <<<grid, NarrowTuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, vectorised);
      }
      return;
    }
  }
  const auto grid = static_cast<unsigned>(blocks);
  chunks.sequences.with_kind([&](auto is) {
    constexpr SequenceKind kind = decltype(is)::value;
    if (carried > 0) {
      for (int pass = 0; pass < Tuning::passes; ++pass) {
        scan_kernel<C, S, States, false, true, kind>
            <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, vectorised);
      }
      const auto carries = static_cast<unsigned>(ceiling_divide(scan.shape.batch * States * channels, Index{128}));
      scan_carry_kernel<T, S, States, false>
          <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.state, scan.shape.batch, channels);
    }
    for (int pass = 0; pass < Tuning::passes; ++pass) {
      scan_kernel<C, S, States, false, false, kind>
          <<<grid, Tuning::threads, 0, device.stream()>>>(scan, carry, sums, pass * Tuning::pass, vectorised);
    }
  });
}

template <class C, class S, int States>
void launch_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan, const ScanChunks& chunks,
                          Index carried) {
  using T = compute_t<C>;
  using Tuning = ScanBackwardTuning<T, States>;
  using Summary = ScanForwardTuning<T, States, false>;
  const Index channels = scan.u.columns, tokens = scan.shape.tokens();
  const Index groups = ceiling_divide(channels, Index{Tuning::width});
  Arena arena = scan.scratch;
  const ScanPartialSums<T> partial(arena, tokens, chunks.parts, channels, States);
  const ScanCarry<T> carry(arena, chunks, carried, channels, States);
  const ScanPassSums<C, 3> sums(arena, tokens, channels, Tuning::passes);
  const bool vectorised =
      can_vectorise<Tuning::vector>(scan.u, scan.delta, scan.z, scan.dy, scan.du, scan.ddelta, scan.dz);
  const bool summary_vectorised = can_vectorise<Summary::vector>(scan.delta, scan.z, scan.dy);
  if (carried > 0) {
    const auto grid = static_cast<unsigned>(scan_blocks<C>(chunks.parts, channels));
    chunks.sequences.with_kind([&](auto kind) {
      for (int pass = 0; pass < Summary::passes; ++pass) {
        scan_backward_summary_kernel<C, S, States, decltype(kind)::value>
            <<<grid, Summary::threads, 0, device.stream()>>>(scan, carry, pass * Summary::pass, summary_vectorised);
      }
    });
    const auto carries = static_cast<unsigned>(ceiling_divide(scan.shape.batch * States * channels, Index{128}));
    scan_carry_kernel<T, S, States, true>
        <<<carries, 128, 0, device.stream()>>>(carry, scan.a_log, scan.dstate, scan.shape.batch, channels);
  }
  const auto kernel = scan_backward_kernel<C, S, States>;
  constexpr int shared = sizeof(typename ScanBackward<C, S, States>::Storage);
  static_assert(shared <= 99 * 1024);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  const auto grid = static_cast<unsigned>(groups * chunks.parts);
  for (int pass = 0; pass < Tuning::passes; ++pass) {
    kernel<<<grid, Tuning::threads, shared, device.stream()>>>(scan, carry, partial, sums, pass * Tuning::pass,
                                                               vectorised);
  }
  const auto elements = static_cast<unsigned>(ceiling_divide(tokens * States, Index{256}));
  scan_coefficient_gradients_kernel<C>
      <<<elements, 256, 0, device.stream()>>>(partial, groups, tokens, States, scan.db, scan.dc);
  const auto parameters = static_cast<unsigned>(ceiling_divide(channels * (States + 2), Index{256}));
  scan_parameter_gradients_kernel<T><<<parameters, 256, 0, device.stream()>>>(partial, chunks, channels, States,
                                                                              scan.da_log, scan.dd, scan.ddelta_bias);
}

}  // namespace detail

/// Upper bound on the scratch of selective_scan and selective_scan_backward in bytes of device memory, for this shape
/// and any smaller one: about E / 32 values of type compute_t<C> per element of B, and one per element of a_log,
/// sequence and chunk. bfloat16 activations with more than 32 states need three more per element of u. Packed sequences
/// need no more than as many sequences of the longest length; a launch takes as many as fit.
template <StorageScalar C>
std::size_t selective_scan_scratch(const Device& device, Shape shape, Index channels, Index states) {
  using T = compute_t<C>;
  using Table = detail::SequenceTable<detail::ScanSequence>;
  const Index batch = shape.lengths == nullptr ? shape.batch : std::min(shape.batch, Index{Table::most});
  const auto parts = [&](Index resident, Index groups) {
    return detail::most_scan_parts(device.processors(), resident, groups, batch, shape.length);
  };
  const detail::ScanParts forward = parts(detail::scan_forward_resident<T>, detail::scan_blocks<C>(1, channels));
  const detail::ScanParts backward = parts(
      detail::scan_backward_resident, ceiling_divide(channels, Index{detail::scan_backward_width(sizeof(T), states)}));
  const Index tokens = shape.tokens();
  return detail::table_bytes<detail::ScanSequence> +
         std::max(detail::scan_forward_bytes<C>(tokens, forward.chunked, channels, states),
                  detail::scan_backward_bytes<C>(tokens, backward.all, backward.chunked, channels, states));
}

/// See ops/selective_scan.hpp. Pointers are to device memory. Neither allocates nor synchronises; outputs must not
/// overlap inputs. A length of 0 leaves the states unchanged.
///
/// Decays below 2^-126 (double: 2^-1022) are flushed to 0. A NaN in delta, u, B, C or z propagates to y; one in delta,
/// u, B, a_log or the state persists in the state. Results are bitwise reproducible; they depend, within rounding, on
/// how a sequence is divided into calls and on the batch size, and a packed sequence gives the same bits as alone.
/// Throws Error if a kernel cannot be launched.
template <class C, class S, int States>
void selective_scan(Device& device, const SelectiveScan<C, S, States>& scan) {
  static_assert(States >= 1, "selective_scan: State must be at least 1");
  const Index channels = scan.u.columns;
  if (scan.shape.tokens() == 0 || channels == 0) return;
  detail::for_scan_launches(
      device, scan, selective_scan_scratch<C>(device, scan.shape, channels, States), 2,
      [&](Index batch, Index length) {
        const Index blocks = detail::scan_blocks<C>(batch, channels);
        if (detail::scan_takes_narrow<C, States>(device, blocks)) return detail::whole_scan(length);
        return detail::scan_chunking(device.processors(), detail::scan_forward_resident<compute_t<C>>, blocks, length);
      },
      [&](const detail::ScanLoad& load) {
        return detail::scan_forward_bytes<C>(load.tokens, load.carried(), channels, States);
      },
      [&](const auto& part, const detail::ScanChunks& chunks, Index carried) {
        const Shape& shape = part.shape;
        bool has_steps = shape.length == 1;
        for (Index b = 0; shape.lengths != nullptr && b < shape.batch; ++b) has_steps |= shape.lengths[b] == 1;
        if (has_steps) detail::launch_scan_steps(device, part, chunks.sequences);
        if (chunks.parts > 0) detail::launch_scan(device, part, chunks, carried);
      });
  check_launch("selective_scan");
}

/// See ops/selective_scan.hpp. Pointers are to device memory. Neither allocates nor synchronises; outputs must not
/// overlap inputs or one another. A length of 0 leaves everything unchanged.
///
/// A NaN in an input of a step propagates to the gradients of the inputs of that step and of all earlier ones. Results
/// are bitwise reproducible. Throws Error if a kernel cannot be launched.
template <class C, class S, int States>
void selective_scan_backward(Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  const Index channels = scan.u.columns;
  const Index groups = ceiling_divide(channels, Index{detail::ScanBackwardTuning<compute_t<C>, States>::width});
  if (scan.shape.tokens() == 0 || channels == 0) return;
  detail::for_scan_launches(
      device, scan, selective_scan_scratch<C>(device, scan.shape, channels, States), 1,
      [&](Index batch, Index length) {
        return detail::scan_chunking(device.processors(), detail::scan_backward_resident, batch * groups, length);
      },
      [&](const detail::ScanLoad& load) {
        return detail::scan_backward_bytes<C>(load.tokens, load.parts, load.carried(), channels, States);
      },
      [&](const auto& part, const detail::ScanChunks& chunks, Index carried) {
        detail::launch_scan_backward(device, part, chunks, carried);
      });
  check_launch("selective_scan_backward");
}

}  // namespace moe_mamba::inline v0_2::cuda
