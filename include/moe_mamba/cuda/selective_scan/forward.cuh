#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The selective scan on a GPU, forward. For a step t, channel e and state n:
///
///   Δ = softplus(delta + delta_bias)      decay = exp(Δ A) = 2^(Δ rate),  rate = -exp(a_log) log2(e)
///   h ← decay h + (Δ u) B                 y = (Σ_n C h + d u) silu(z)
///
/// Neighbouring lanes have neighbouring channels, so rows are read in place; the warps of a block share the states of
/// the same channels. A block computes Δ, Δ u, B and C of a tile once and stages them for all its warps. While tile i
/// is computed, tile i + 1 is staged and tile i + 2 prefetched into registers, so a tile needs one barrier:
///
///   load_inputs(0); stage_inputs(0); load_inputs(1); barrier
///   for each tile i:
///     save_states         where a segment begins, as its checkpoint
///     stage_inputs(i + 1)   registers → shared memory: Δ, Δ u, B, C
///     load_inputs(i + 2)    device memory → registers
///     advance_states(i)     each warp: h ← decay h + (Δ u) B for its states, and its part of Σ_n C h → shared memory
///     barrier
///     reduce_outputs(i)     adds the warps' parts in order, applies skip and gate, writes y
///
/// If there are too few channels for wide blocks, blocks are narrow, with one channel per lane. If there are too few
/// even then, time is divided into chunks: the `summary` kernel computes each chunk's final states from zero initial
/// states, scan_carry_kernel propagates states across the chunks, and then all chunks are scanned in parallel. A single
/// step has a separate kernel.
///
/// bfloat16 activations are converted to float after loading and rounded before storing; states and sums are float.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Writes a chunk's summary: states, or gradients with respect to them, and the sums of Δ, which a channel's threads
/// hold for their rows and which are added in the order of rows. `sums` is a tile of shared memory that is no longer
/// needed.
template <int States, SequenceKind kind, class Tile, class C, int channels, int states, class Elements, int steps,
          int width>
__device__ __forceinline__ void write_summary(const Tile& tile, const ScanCarry<C>& carry,
                                              const C (&h)[channels][states], const Elements& delta_sum,
                                              C (&sums)[steps][width]) {
  const ScanChunks& chunks = carry.chunks;
  const Index part = chunks.part<kind>(tile.sequence, tile.chunk);
#pragma unroll
  for (int k = 0; k < channels; ++k) {
#pragma unroll
    for (int n = 0; n < states; ++n) {
      if (tile.has(k, n)) carry.states[part * States * tile.channels + tile.state_offset(k, n)] = h[k][n];
    }
  }
  as_vector<Elements>(sums[Tile::row()][Tile::column()]) = delta_sum;
  __syncthreads();
  for (int column = static_cast<int>(threadIdx.x); column < width; column += Tile::threads) {
    if (tile.channel0 + column >= tile.channels) break;
    C sum = C(0);
    for (int row = 0; row < Tile::row_step; ++row) sum += sums[row][column];
    carry.delta_sums[part * tile.channels + tile.channel0 + column] = sum;
  }
}

template <class C, class S, int States, bool narrow_blocks, bool summary, SequenceKind kind>
class ScanForward {
  using T = compute_t<C>;
  using Tuning = ScanForwardTuning<T, States, narrow_blocks>;
  using Scan = SelectiveScan<C, S, States>;
  using Tile = ThreadTile<Tuning, States, kind>;
  using Loaded = Packed<C, Tuning::vector>;
  static constexpr int states = Tuning::states, channels = Tuning::channels;

 public:
  using Storage = ScanStorage<T, Tuning>;

  __device__ __forceinline__ ScanForward(const Scan& scan, const ScanCarry<T>& carry, const ScanPassSums<C, 1>& sums,
                                         int first_state, bool vectorised, Storage& storage)
      : scan_(scan),
        carry_(carry),
        storage_(storage),
        tile_(scan.u.columns, carry.chunks, first_state),
        vectorised_(vectorised),
        delta_(scan.delta, first_row() + Tile::row(), tile_.vector_channel()),
        u_(scan.u, first_row() + Tile::row(), tile_.vector_channel()),
        z_(scan.z, first_row() + Tile::row(), tile_.vector_channel()),
        y_(scan.y, sums.of[0], first_row() + Tile::row(), tile_.vector_channel()),
        b_(scan.b, first_row() + Tile::coefficient_row(), tile_.coefficient_state()),
        c_(scan.c, first_row() + Tile::coefficient_row(), tile_.coefficient_state()) {}

  __device__ __forceinline__ void run() {
    if (summary && is_last_chunk()) return;
    load_parameters();
    Index left = tile_.end - tile_.begin;  // remaining steps, including the current tile
    load_inputs(left);
    stage_inputs(0);
    load_inputs(left - Tuning::steps);
    __syncthreads();
    int stage = 0;
    for (Index first = tile_.begin; left > 0; first += Tuning::steps, left -= Tuning::steps, stage ^= 1) {
      if (!summary && scan_.checkpoints != nullptr && first % scan_checkpoint_interval == 0) {
        save_states(scan_.checkpoints +
                    chunks().template checkpoint<kind>(tile_.sequence, first) * States * tile_.channels);
      }
      Loaded z[Tuning::rows], u[Tuning::rows];  // the current tile's
#pragma unroll
      for (int i = 0; i < Tuning::rows; ++i) z[i] = staged_.z[i], u[i] = staged_.u[i];
      stage_inputs(stage ^ 1);
      load_inputs(left - 2 * Tuning::steps);
      advance_states(storage_.tiles[stage]);
      __syncthreads();
      if (!summary) reduce_outputs(storage_.tiles[stage], z, u, left);
    }
    if (summary) {
      write_summary<States, kind>(tile_, carry_, h_, delta_sum_, storage_.tiles[0].outputs[0]);
    } else if (scan_.state.data != nullptr && is_last_chunk()) {
      save_states(scan_.state.data + tile_.sequence * scan_.state.stride);
    }
  }

 private:
  __device__ __forceinline__ const ScanChunks& chunks() const { return carry_.chunks; }
  __device__ __forceinline__ Index first_row() const {
    return chunks().sequences.template row_of<kind>(tile_.sequence) + tile_.begin;
  }
  __device__ __forceinline__ bool is_last_chunk() const {
    return tile_.end == chunks().sequences.template length_of<kind>(tile_.sequence);
  }
  __device__ __forceinline__ const T* initial_states() const {
    if (summary) return nullptr;
    if (carry_.states != nullptr)
      return carry_.states + chunks().template part<kind>(tile_.sequence, tile_.chunk) * States * tile_.channels;
    return scan_.state.data == nullptr ? nullptr : scan_.state.data + tile_.sequence * scan_.state.stride;
  }

  __device__ __forceinline__ void load_parameters() {
    const T* const from = initial_states();
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int n = 0; n < states; ++n) {
        h_[k][n] = from != nullptr && tile_.has(k, n) ? from[tile_.state_offset(k, n)] : T(0);
        rate_[k][n] = tile_.has(k, n) ? decay_rate<T>(scan_.a_log[tile_.parameter_offset(k, n)]) : T(0);
      }
    }
#pragma unroll
    for (int j = 0; j < Tuning::vector; ++j) {
      const Index channel = tile_.vector_channel() + j;
      bias_.values[j] = j < tile_.present ? static_cast<T>(scan_.delta_bias[channel]) : T(0);
      // The skip connection is added once, in the first pass.
      d_.values[j] = j < tile_.present && tile_.first_pass() ? static_cast<T>(scan_.d[channel]) : T(0);
    }
  }

  __device__ __forceinline__ void save_states(T* to) const {
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int n = 0; n < states; ++n) {
        if (tile_.has(k, n)) to[tile_.state_offset(k, n)] = h_[k][n];
      }
    }
  }

  /// Prefetches the rows of the next tile; `left` steps remain, including it.
  __device__ __forceinline__ void load_inputs(Index left) {
    const int steps = static_cast<int>(min(Index{Tuning::steps}, left));
#pragma unroll
    for (int i = 0; i < Tuning::coefficient_rows; ++i) {
      const bool here = tile_.has_coefficient() && Tile::coefficient_row() + i * Tuning::coefficient_row_step < steps;
      next_.b[i] = here ? *b_.at : C{};
      if (!summary) next_.c[i] = here ? *c_.at : C{};
      b_.move(1), c_.move(1);
    }
    constexpr int beyond = Tuning::steps - Tuning::coefficient_rows * Tuning::coefficient_row_step;
    if (beyond != 0) b_.at += beyond * scan_.b.stride, c_.at += beyond * scan_.c.stride;
    tile_.for_rows(vectorised_, steps, [&](auto vectorised, int i, int present) {
      constexpr bool v = decltype(vectorised)::value;
      next_.delta[i] = broadcast<C, Tuning::vector>(no_step<T>);
      delta_.template load<v>(next_.delta[i], present);
      u_.template load<v>(next_.u[i], present);
      if (!summary) z_.template load<v>(next_.z[i], present);
      delta_.move(1), u_.move(1), z_.move(1);
    });
  }

  /// Stages the prefetched tile's inputs of the recurrence, and keeps the inputs of its outputs in registers.
  __device__ __forceinline__ void stage_inputs(int stage) {
    auto& to = storage_.tiles[stage];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const typename Storage::ElementVector delta = widen(next_.delta[i]), u = widen(next_.u[i]);
      detail::stage_inputs<C>(delta, bias_, to.inputs[Tile::row() + i * Tuning::row_step][Tile::column()],
                              [&](int j, T step) {
                                if (summary) delta_sum_.values[j] += step;
                                return step * u.values[j];
                              });
      staged_.z[i] = next_.z[i];
      staged_.u[i] = next_.u[i];
    }
#pragma unroll
    for (int i = 0; i < Tuning::coefficient_rows; ++i) {
      const int t = Tile::coefficient_row() + i * Tuning::coefficient_row_step;
      if (t >= Tuning::steps) continue;
      to.b[t][Tile::coefficient_warp()].values[Tile::coefficient_index()] = static_cast<T>(next_.b[i]);
      if (!summary) to.c[t][Tile::coefficient_warp()].values[Tile::coefficient_index()] = static_cast<T>(next_.c[i]);
    }
  }

  /// A thread's inputs of a step.
  struct Step {
    Vector<ScanInput<T>, channels> inputs;
    typename Storage::StateVector b, c;
  };
  __device__ __forceinline__ Step step_at(const typename Storage::Tile& tile, int t) const {
    Step step;
    step.inputs = as_vector<const Vector<ScanInput<T>, channels>>(tile.inputs[t][tile_.lane * channels]);
    step.b = tile.b[t][tile_.warp];
    if (!summary) step.c = tile.c[t][tile_.warp];
    return step;
  }

  /// The recurrence over a tile. Each step is loaded while the previous one is computed, as the compiler moves no load
  /// across a store.
  __device__ __forceinline__ void advance_states(typename Storage::Tile& tile) {
    Step next = step_at(tile, 0);
#pragma unroll
    for (int t = 0; t < Tuning::steps; ++t) {
      const Step step = next;
      if (t + 1 < Tuning::steps) next = step_at(tile, t + 1);
      typename Storage::ChannelVector output;
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, input] = step.inputs.values[k];
#pragma unroll
        for (int n = 0; n < states; ++n) {
          T& h = h_[k][n];
          h = fma(power_of_two(delta * rate_[k][n]), h, input * step.b.values[n]);
          if (summary) continue;
          output.values[k] = n == 0 ? step.c.values[n] * h : fma(step.c.values[n], h, output.values[k]);
        }
      }
      if (!summary) {
        as_vector<typename Storage::ChannelVector>(tile.outputs[tile_.warp][t][tile_.lane * channels]) = output;
      }
    }
  }

  __device__ __forceinline__ void reduce_outputs(typename Storage::Tile& tile, const Loaded (&z)[Tuning::rows],
                                                 const Loaded (&u)[Tuning::rows], Index left) {
    using ElementVector = typename Storage::ElementVector;
    const int steps = static_cast<int>(min(Index{Tuning::steps}, left));
    ElementVector y[Tuning::rows];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Tile::row() + i * Tuning::row_step;
      const ElementVector skipped = widen(u[i]), gate = widen(z[i]);
#pragma unroll
      for (int j = 0; j < Tuning::vector; ++j) y[i].values[j] = d_.values[j] * skipped.values[j];
#pragma unroll
      for (int warp = 0; warp < Tuning::warps; ++warp) {
        const auto outputs = as_vector<ElementVector>(tile.outputs[warp][t][Tile::column()]);
#pragma unroll
        for (int j = 0; j < Tuning::vector; ++j) y[i].values[j] += outputs.values[j];
      }
#pragma unroll
      for (int j = 0; j < Tuning::vector; ++j) y[i].values[j] *= silu_of<C>(gate.values[j]);
    }
    tile_.for_rows(vectorised_, steps, [&](auto vectorised, int i, int present) {
      constexpr bool v = decltype(vectorised)::value;
      y_.template add<v>(y[i], present, tile_.first_pass(), tile_.last_pass());
      y_.move(1);
    });
  }

  const Scan& scan_;
  const ScanCarry<T>& carry_;
  Storage& storage_;
  Tile tile_;
  bool vectorised_;
  typename Storage::ElementVector bias_, d_, delta_sum_ = {};
  T rate_[channels][states], h_[channels][states];
  RowCursor<const C, Tuning::row_step> delta_, u_, z_;
  OutputCursor<C, ScanPassSums<C, 1>::separate(Tuning::passes), Tuning::row_step> y_;
  RowCursor<const C, Tuning::coefficient_row_step> b_, c_;
  struct {
    Loaded delta[Tuning::rows], u[Tuning::rows], z[Tuning::rows];
    C b[Tuning::coefficient_rows], c[Tuning::coefficient_rows];
  } next_ = {};  // the prefetched tile
  struct {
    Loaded z[Tuning::rows], u[Tuning::rows];
  } staged_ = {};  // the staged tile
};

/// The summary of a chunk for the backward pass, in forward tiles: the gradient with respect to the states before the
/// chunk if that of the states after it is zero, g ← decay (g + dy silu(z) C) from the last step to the first, and the
/// sum of its Δ.
template <class C, class S, int States, SequenceKind kind>
__global__ void __launch_bounds__(ScanForwardTuning<compute_t<C>, States, false>::threads)
    scan_backward_summary_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                                 const __grid_constant__ ScanCarry<compute_t<C>> carry, int first_state,
                                 bool vectorised) {
  using T = compute_t<C>;
  using Tuning = ScanForwardTuning<T, States, false>;
  using Storage = ScanStorage<T, Tuning>;
  using ElementVector = typename Storage::ElementVector;
  using Loaded = Packed<C, Tuning::vector>;
  using Tile = ThreadTile<Tuning, States, kind>;
  constexpr int channels = Tuning::channels, states = Tuning::states;
  __shared__ typename Storage::Tile storage;
  const ScanChunks& chunks = carry.chunks;
  const Tile tile(scan.u.columns, chunks, first_state);
  if (tile.chunk == 0) return;  // nothing is propagated from there
  ElementVector bias = {}, delta_sum = {};
  for (int j = 0; j < tile.present; ++j) bias.values[j] = static_cast<T>(scan.delta_bias[tile.vector_channel() + j]);
  T rate[channels][states], g[channels][states] = {};
#pragma unroll
  for (int k = 0; k < channels; ++k) {
#pragma unroll
    for (int n = 0; n < states; ++n) {
      rate[k][n] = tile.has(k, n) ? decay_rate<T>(scan.a_log[tile.parameter_offset(k, n)]) : T(0);
    }
  }
  const Index tiles = ceiling_divide(tile.end - tile.begin, Tuning::steps);
  for (Index first = tile.begin + (tiles - 1) * Tuning::steps; first >= tile.begin; first -= Tuning::steps) {
    const Index first_row = chunks.sequences.row_of<kind>(tile.sequence) + first;
    Loaded delta[Tuning::rows], dy[Tuning::rows], z[Tuning::rows];  // all loaded before the first use
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Tile::row() + i * Tuning::row_step, present = first + t < tile.end ? tile.present : 0;
      const auto load = [&](Loaded& to, const MatrixView<const C>& rows) {
        const RowCursor<const C, 1> cursor(rows, first_row + t, tile.vector_channel());
        if (vectorised) {
          cursor.template load<true>(to, present);
        } else {
          cursor.template load<false>(to, present);
        }
      };
      delta[i] = broadcast<C, Tuning::vector>(no_step<T>), dy[i] = {}, z[i] = {};
      load(delta[i], scan.delta), load(dy[i], scan.dy), load(z[i], scan.z);
    }
    for (int t = Tile::coefficient_row(); t < Tuning::steps; t += Tuning::coefficient_row_step) {
      const bool here = first + t < tile.end && tile.has_coefficient();
      const C c = here ? scan.c.data[(first_row + t) * scan.c.stride + tile.coefficient_state()] : C{};
      storage.c[t][Tile::coefficient_warp()].values[Tile::coefficient_index()] = static_cast<T>(c);
    }
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const ElementVector deltas = widen(delta[i]), dys = widen(dy[i]), zs = widen(z[i]);
      stage_inputs<C>(deltas, bias, storage.inputs[Tile::row() + i * Tuning::row_step][Tile::column()],
                      [&](int j, T step) {
                        delta_sum.values[j] += step;
                        return dys.values[j] * silu_of<C>(zs.values[j]);
                      });
    }
    __syncthreads();
#pragma unroll
    for (int t = Tuning::steps - 1; t >= 0; --t) {
      const auto inputs = as_vector<Vector<ScanInput<T>, channels>>(storage.inputs[t][tile.lane * channels]);
      const auto c = storage.c[t][tile.warp];
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [step, dp] = inputs.values[k];
#pragma unroll
        for (int n = 0; n < states; ++n) {
          g[k][n] = power_of_two(step * rate[k][n]) * fma(dp, c.values[n], g[k][n]);
        }
      }
    }
    __syncthreads();
  }
  write_summary<States, kind>(tile, carry, g, delta_sum, storage.outputs[0]);
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
