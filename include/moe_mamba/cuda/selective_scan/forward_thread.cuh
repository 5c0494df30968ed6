#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/cuda/selective_scan/tuning.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The body of the forward kernel of the selective scan; see cuda/selective_scan/forward.cuh.
namespace moe_mamba::cuda::detail {

/// What a thread does of a forward pass. In what concerns states it has some of one or two neighbouring channels, those of
/// its warp; in what is done once for each element, up to four neighbouring channels of some rows. With `Summary` it only
/// finds the states behind its chunk, from zero ones, and the sum of Δ.
template <class C, class S, int States, bool Narrow, bool Summary>
class ScanThread {
  using T = compute_t<C>;
  using Tuning = ScanForwardTuning<T, States, Narrow>;
  using Scan = SelectiveScan<C, S, States>;
  using Own = ScanElements<Tuning>;
  using Loaded = Packed<C, Tuning::together>;
  static constexpr int states = Tuning::states, channels = Tuning::channels;

 public:
  using Storage = ScanStorage<T, Tuning>;

  __device__ __forceinline__ ScanThread(const Scan& scan, const ScanCarry<T>& carry, const ScanPassSums<C, 1>& sums,
                                        int first_state, bool loads_together, Storage& storage)
      : scan_(scan),
        carry_(carry),
        storage_(storage),
        place_(scan.u.columns, scan.shape.length, carry.chunking, Tuning::width),
        channels_(scan.u.columns),
        loads_together_(loads_together),
        first_state_(first_state),
        own_state_(first_state + place_.warp * states),
        inside_(static_cast<int>(
            max(Index{0}, min(Index{Tuning::together}, channels_ - place_.first_channel - Own::column())))),
        delta_(scan.delta, row() + Own::row(), place_.first_channel + Own::column()),
        u_(scan.u, row() + Own::row(), place_.first_channel + Own::column()),
        z_(scan.z, row() + Own::row(), place_.first_channel + Own::column()),
        y_(scan.y, sums.of[0], row() + Own::row(), place_.first_channel + Own::column()),
        b_(scan.b, row() + Own::coefficient_row(), first_state + Own::state()),
        c_(scan.c, row() + Own::coefficient_row(), first_state + Own::state()) {}

  /// One barrier a tile: while a tile is at work, the next one is made ready, and the one after that asked for.
  __device__ __forceinline__ void run() {
    if (Summary && place_.chunk + 1 == carry_.chunking.count) return;
    start();
    Index left = place_.end - place_.begin;  // steps from the tile at work on
    load(left);
    prepare(0);
    load(left - Tuning::steps);
    __syncthreads();
    int tile = 0;
    for (Index first = place_.begin; left > 0; first += Tuning::steps, left -= Tuning::steps, tile ^= 1) {
      if (!Summary && scan_.checkpoints != nullptr && first % scan_checkpoint_interval == 0) {
        const Index pieces = ceiling_divide(scan_.shape.length, scan_checkpoint_interval);
        save(scan_.checkpoints + (place_.sequence * pieces + first / scan_checkpoint_interval) * States * channels_);
      }
      Loaded z[Tuning::rows], u[Tuning::rows];  // of the tile at work
#pragma unroll
      for (int i = 0; i < Tuning::rows; ++i) z[i] = ready_.z[i], u[i] = ready_.u[i];
      prepare(tile ^ 1);
      load(left - 2 * Tuning::steps);
      update(storage_.tiles[tile]);
      __syncthreads();
      if (!Summary) conclude(storage_.tiles[tile], z, u, left);
    }
    finish();
  }

 private:
  __device__ __forceinline__ Index row() const { return place_.sequence * scan_.shape.length + place_.begin; }
  __device__ __forceinline__ Index own_channel(int k) const {
    return place_.first_channel + place_.lane * channels + k;
  }
  __device__ __forceinline__ bool owns(int k, int r) const {
    return own_channel(k) < channels_ && (Tuning::exact || own_state_ + r < States);
  }
  __device__ __forceinline__ bool first_pass() const { return Tuning::passes == 1 || first_state_ == 0; }
  __device__ __forceinline__ bool last_pass() const {
    return Tuning::passes == 1 || first_state_ + Tuning::pass >= States;
  }
  /// Of a state of the thread in a running state, a checkpoint or a carry.
  __device__ __forceinline__ Index offset(int k, int r) const { return (own_state_ + r) * channels_ + own_channel(k); }
  __device__ __forceinline__ Index chunk() const { return place_.sequence * carry_.chunking.count + place_.chunk; }
  __device__ __forceinline__ const T* initial() const {
    if (Summary) return nullptr;
    if (carry_.states != nullptr) return carry_.states + chunk() * States * channels_;
    return scan_.state.data == nullptr ? nullptr : scan_.state.data + place_.sequence * scan_.state.stride;
  }

  __device__ __forceinline__ void start() {
    const T* const from = initial();
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        h_[k][r] = from != nullptr && owns(k, r) ? from[offset(k, r)] : T(0);
        rate_[k][r] = owns(k, r) ? decay_rate<T>(scan_.a_log[own_channel(k) * States + own_state_ + r]) : T(0);
      }
    }
#pragma unroll
    for (int j = 0; j < Tuning::together; ++j) {
      const Index channel = place_.first_channel + Own::column() + j;
      bias_.values[j] = j < inside_ ? static_cast<T>(scan_.delta_bias[channel]) : T(0);
      // The skip is added once, in the first pass.
      d_.values[j] = j < inside_ && first_pass() ? static_cast<T>(scan_.d[channel]) : T(0);
    }
  }

  __device__ __forceinline__ void save(T* to) const {
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        if (owns(k, r)) to[offset(k, r)] = h_[k][r];
      }
    }
  }

  /// Asks for the rows of the next tile, from which on `left` steps are left.
  __device__ __forceinline__ void load(Index left) {
    const int steps = static_cast<int>(min(Index{Tuning::steps}, left));
#pragma unroll
    for (int i = 0; i < Tuning::coefficient_rows; ++i) {
      const bool here = Own::template has_state<States>(first_state_) &&
                        Own::coefficient_row() + i * Tuning::coefficient_rows_apart < steps;
      next_.b[i] = here ? *b_.at : C{};
      if (!Summary) next_.c[i] = here ? *c_.at : C{};
      b_.move(1), c_.move(1);
    }
    constexpr int beyond = Tuning::steps - Tuning::coefficient_rows * Tuning::coefficient_rows_apart;
    if (beyond != 0) b_.at += beyond * scan_.b.stride, c_.at += beyond * scan_.c.stride;
    if (loads_together_) {
      load_rows<true>(steps);
    } else {
      load_rows<false>(steps);
    }
  }

  template <bool Together>
  __device__ __forceinline__ void load_rows(int steps) {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int present = Own::row() + i * Tuning::rows_apart < steps ? inside_ : 0;
      next_.delta[i] = broadcast<C, Tuning::together>(no_step<T>);
      delta_.template load<Together>(next_.delta[i], present);
      u_.template load<Together>(next_.u[i], present);
      if (!Summary) z_.template load<Together>(next_.z[i], present);
      delta_.move(1), u_.move(1), z_.move(1);
    }
  }

  /// Stages what the recurrence needs of the tile that was asked for, and keeps what its end needs. Steps that are not
  /// there leave the states as they are.
  __device__ __forceinline__ void prepare(int tile) {
    auto& to = storage_.tiles[tile];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const typename Storage::Elements delta = widen(next_.delta[i]), u = widen(next_.u[i]);
      Vector<T, 2 * Tuning::together> inputs;
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) {
        const T step = softplus_of<C>(delta.values[j] + bias_.values[j]);
        inputs.values[2 * j] = step;
        inputs.values[2 * j + 1] = step * u.values[j];
        if (Summary) delta_sum_.values[j] += step;
      }
      as_vector<Vector<T, 2 * Tuning::together>>(to.inputs[Own::row() + i * Tuning::rows_apart][Own::column()]) =
          inputs;
      ready_.z[i] = next_.z[i];
      ready_.u[i] = next_.u[i];
    }
#pragma unroll
    for (int i = 0; i < Tuning::coefficient_rows; ++i) {
      const int t = Own::coefficient_row() + i * Tuning::coefficient_rows_apart;
      if (t >= Tuning::steps) continue;
      to.b[t][Own::group()].values[Own::place()] = static_cast<T>(next_.b[i]);
      if (!Summary) to.c[t][Own::group()].values[Own::place()] = static_cast<T>(next_.c[i]);
    }
  }

  /// What a thread reads of a step.
  struct Step {
    Vector<ScanInput<T>, channels> inputs;
    typename Storage::States b, c;
  };
  __device__ __forceinline__ Step step_at(const typename Storage::Tile& tile, int t) const {
    Step step;
    step.inputs = as_vector<const Vector<ScanInput<T>, channels>>(tile.inputs[t][place_.lane * channels]);
    step.b = tile.b[t][place_.warp];
    if (!Summary) step.c = tile.c[t][place_.warp];
    return step;
  }

  /// The recurrence over a tile. A step is read while the one before is at work: the compiler moves no load across a store.
  __device__ __forceinline__ void update(typename Storage::Tile& tile) {
    Step next = step_at(tile, 0);
#pragma unroll
    for (int t = 0; t < Tuning::steps; ++t) {
      const Step step = next;
      if (t + 1 < Tuning::steps) next = step_at(tile, t + 1);
      typename Storage::Channels part;
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, drive] = step.inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          h_[k][r] = fma(power_of_two(delta * rate_[k][r]), h_[k][r], drive * step.b.values[r]);
          if (!Summary)
            part.values[k] = r == 0 ? step.c.values[r] * h_[k][r] : fma(step.c.values[r], h_[k][r], part.values[k]);
        }
      }
      if (!Summary) as_vector<typename Storage::Channels>(tile.parts[place_.warp][t][place_.lane * channels]) = part;
    }
  }

  /// Adds up a tile's parts and writes y.
  __device__ __forceinline__ void conclude(typename Storage::Tile& tile, const Loaded (&z)[Tuning::rows],
                                           const Loaded (&u)[Tuning::rows], Index left) {
    const int steps = static_cast<int>(min(Index{Tuning::steps}, left));
    typename Storage::Elements y[Tuning::rows];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Own::row() + i * Tuning::rows_apart;
      const typename Storage::Elements skipped = widen(u[i]), gate = widen(z[i]);
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) y[i].values[j] = d_.values[j] * skipped.values[j];
#pragma unroll
      for (int warp = 0; warp < Tuning::warps; ++warp) {
        const auto parts = as_vector<typename Storage::Elements>(tile.parts[warp][t][Own::column()]);
#pragma unroll
        for (int j = 0; j < Tuning::together; ++j) y[i].values[j] += parts.values[j];
      }
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) y[i].values[j] *= silu_of<C>(gate.values[j]);
    }
    if (loads_together_) {
      store_rows<true>(y, steps);
    } else {
      store_rows<false>(y, steps);
    }
  }

  template <bool Together>
  __device__ __forceinline__ void store_rows(const typename Storage::Elements (&y)[Tuning::rows], int steps) {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int present = Own::row() + i * Tuning::rows_apart < steps ? inside_ : 0;
      y_.template add<Together>(y[i], present, first_pass(), last_pass());
      y_.move(1);
    }
  }

  __device__ __forceinline__ void finish() {
    if (Summary) {
      save(carry_.states + chunk() * States * channels_);
      // What the rows of a channel found is added in their order.
      as_vector<typename Storage::Elements>(storage_.tiles[0].parts[0][Own::row()][Own::column()]) = delta_sum_;
      __syncthreads();
      for (int column = Own::thread(); column < Tuning::width; column += Tuning::threads) {
        if (place_.first_channel + column >= channels_) break;
        T sum = T(0);
        for (int row = 0; row < Tuning::rows_apart; ++row) sum += storage_.tiles[0].parts[0][row][column];
        carry_.delta_sums[chunk() * channels_ + place_.first_channel + column] = sum;
      }
    } else if (scan_.state.data != nullptr && place_.end == scan_.shape.length) {
      save(scan_.state.data + place_.sequence * scan_.state.stride);
    }
  }

  const Scan& scan_;
  const ScanCarry<T>& carry_;
  Storage& storage_;
  ScanPlace place_;
  Index channels_;
  bool loads_together_;
  int first_state_;  // of the pass
  int own_state_;    // the thread's first one
  int inside_;       // so many of its columns are there
  typename Storage::Elements bias_, d_, delta_sum_ = {};
  T rate_[channels][states], h_[channels][states];
  RowCursor<const C, Tuning::rows_apart> delta_, u_, z_;
  OutputCursor<C, ScanPassSums<C, 1>::apart(Tuning::passes), Tuning::rows_apart> y_;
  RowCursor<const C, Tuning::coefficient_rows_apart> b_, c_;
  struct {
    Loaded delta[Tuning::rows], u[Tuning::rows], z[Tuning::rows];
    C b[Tuning::coefficient_rows], c[Tuning::coefficient_rows];
  } next_ = {};  // the tile that was asked for
  struct {
    Loaded z[Tuning::rows], u[Tuning::rows];
  } ready_ = {};  // the tile that is staged
};

}  // namespace moe_mamba::cuda::detail
