#pragma once

#include <numbers>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The part of the backward kernel that works on a thread's states; backward.cuh has the formulas and the schedule.
namespace moe_mamba::inline v0_2::cuda::detail {

template <class C, class S, int States>
class ScanBackwardStates {
 protected:
  using T = compute_t<C>;
  using Tuning = ScanBackwardTuning<T, States>;
  using Scan = SelectiveScanBackward<C, S, States>;
  static constexpr SequenceKind kind = SequenceKind::either;
  using Tile = ThreadTile<Tuning, States, kind>;
  static constexpr int states = Tuning::padded;  // per thread, some of which may be padding
  static constexpr int channels = Tuning::channels, held = Tuning::held, summed = Tuning::summed_steps;
  using Registers = T[channels][states];

 public:
  using Storage = ScanBackwardStorage<T, Tuning>;

 protected:
  __device__ __forceinline__ ScanBackwardStates(const Scan& scan, const ScanCarry<T>& carry,
                                                const ScanPartialSums<T>& partial, int first_state, Storage& storage)
      : scan_(scan),
        carry_(carry),
        partial_(partial),
        storage_(storage),
        tile_(scan.u.columns, carry.chunks, first_state),
        last_tile_(row(tile_.end - 1 - (tile_.end - 1) % Tuning::steps)) {}

  /// The index of the state in the thread's slot r: lanes from 16 on have the two halves swapped, see
  /// sum_swapped_over_lanes.
  __device__ __forceinline__ int state(int r) const { return r ^ (tile_.lane / 16 * (states / 2)); }
  __device__ __forceinline__ int copy() const { return Tuning::copies == 1 ? 0 : tile_.lane / 16; }
  __device__ __forceinline__ bool has(int k, int r) const { return tile_.has(k, state(r)); }
  __device__ __forceinline__ Index state_offset(int k, int r) const { return tile_.state_offset(k, state(r)); }
  __device__ __forceinline__ const ScanChunks& chunks() const { return carry_.chunks; }
  /// The row of a step of the sequence.
  __device__ __forceinline__ Index row(Index step) const {
    return chunks().sequences.template row_of<kind>(tile_.sequence) + step;
  }
  /// The index of the sequence's chunk among the chunks of all sequences.
  __device__ __forceinline__ Index part() const { return chunks().template part<kind>(tile_.sequence, tile_.chunk); }

  __device__ __forceinline__ void load_states() {
    const T* from = scan_.dstate.data == nullptr ? nullptr : scan_.dstate.data + tile_.sequence * scan_.dstate.stride;
    if (carry_.states != nullptr) from = carry_.states + part() * States * tile_.channels;
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        carried_[k][r] = from != nullptr && has(k, r) ? from[state_offset(k, r)] : T(0);
        rate_[k][r] = has(k, r) ? decay_rate<T>(scan_.a_log[tile_.parameter_offset(k, state(r))]) : T(0);
        rate_sum_[k][r] = T(0);
      }
    }
    // Which of a warp's sums of dB and dC a lane gets (see sum_swapped_over_lanes), and its address.
    constexpr int lanes = warp_size / Tuning::copies, half = states / Tuning::copies;
    constexpr int alike = lanes / (summed * half);  // lanes with the same sum
    const int index = tile_.lane % lanes / alike, n = state(index % half);
    sum_step_ = index / half;
    writes_sum_ = tile_.lane % alike == 0 && (Tuning::padded == Tuning::states || n < Tuning::states) &&
                  (Tuning::exact || tile_.state0 + n < States);
    coefficient_sum_ =
        (tile_.channel0 / Tuning::width * scan_.shape.tokens() + last_tile_ + sum_step_) * States + tile_.state0 + n;
  }

  /// The states before step `first`.
  __device__ __forceinline__ void load_checkpoint(Index first, Registers& h) const {
    const T* const checkpoint =
        scan_.checkpoints + chunks().template checkpoint<kind>(tile_.sequence, first) * States * tile_.channels;
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) h[k][r] = has(k, r) ? checkpoint[state_offset(k, r)] : T(0);
    }
  }

  using ThreadInputs = Vector<ScanInput<T>, channels>;
  __device__ __forceinline__ ThreadInputs inputs_at(int t) const {
    return as_vector<ThreadInputs>(storage_.inputs[t][tile_.lane * channels]);
  }

  /// Advances the states from the start of a segment to the start of the last of its `groups` groups, saving the entry
  /// states of the other groups.
  __device__ __forceinline__ void recompute_states(Registers& h, int groups) {
    for (int group = 0; group + 1 < groups; ++group) {
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        typename Storage::StateVector entry;
#pragma unroll
        for (int r = 0; r < states; ++r) entry.values[r] = h[k][r];
        storage_.entry[group][k][threadIdx.x] = entry;
      }
#pragma unroll
      for (int i = 0; i < held; ++i) {
        const auto inputs = inputs_at(group * held + i);
        const auto b = storage_.b[group * held + i][copy()][tile_.warp];
#pragma unroll
        for (int k = 0; k < channels; ++k) {
#pragma unroll
          for (int r = 0; r < states; ++r) {
            const T decay = power_of_two(inputs.values[k].delta * rate_[k][r]);
            h[k][r] = fma(decay, h[k][r], inputs.values[k].input * b.values[r]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void load_entry_states(int group, Registers& h) const {
#pragma unroll
    for (int k = 0; k < channels; ++k) {
      const auto entry = storage_.entry[group][k][threadIdx.x];
#pragma unroll
      for (int r = 0; r < states; ++r) h[k][r] = entry.values[r];
    }
  }

  /// A thread's inputs of a step.
  struct Step {
    ThreadInputs inputs;
    typename Storage::ChannelVector dp;
    typename Storage::StateVector b, c;
  };
  __device__ __forceinline__ Step step_at(int tile, int t) const {
    return {inputs_at(tile * Tuning::steps + t),
            as_vector<typename Storage::ChannelVector>(storage_.dp[t][tile_.lane * channels]),
            storage_.b[tile * Tuning::steps + t][copy()][tile_.warp], storage_.c[t][copy()][tile_.warp]};
  }

  /// The group of steps of a tile from `first` on, of which `present` exist: forward from the states before them, then
  /// backward. Inputs are loaded first, once for both directions, as the compiler moves no load from shared memory
  /// across a store.
  __device__ __forceinline__ void compute_group(int tile, int first, Registers& h, int present) {
    Registers decay[held], decayed[held];  // decayed: decay h
    Step steps[held];
#pragma unroll
    for (int t = 0; t < held; ++t) steps[t] = step_at(tile, first + t);
    replay_steps(steps, first, present, h, decay, decayed);
    reverse_steps(steps, first, present, decay, decayed);
  }

  __device__ __forceinline__ void replay_steps(const Step (&steps)[held], int first, int present, Registers& h,
                                               Registers (&decay)[held], Registers (&decayed)[held]) {
    T sums[summed * states];
#pragma unroll
    for (int t = 0; t < held; ++t) {
      const Step& now = steps[t];
      T* const dc = sums + t % summed * states;
      typename Storage::ChannelVector output;
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, input] = now.inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          decay[t][k][r] = power_of_two(delta * rate_[k][r]);
          decayed[t][k][r] = decay[t][k][r] * h[k][r];
          h[k][r] = fma(input, now.b.values[r], decayed[t][k][r]);
          output.values[k] = r == 0 ? now.c.values[r] * h[k][r] : fma(now.c.values[r], h[k][r], output.values[k]);
          dc[r] = k == 0 ? now.dp.values[k] * h[k][r] : fma(now.dp.values[k], h[k][r], dc[r]);
        }
      }
      put(output, 0, first + t);
      if ((t + 1) % summed == 0) sum_over_channels(partial_.dc, sums, first + t + 1 - summed, present);
    }
  }

  __device__ __forceinline__ void reverse_steps(const Step (&steps)[held], int first, int present,
                                                const Registers (&decay)[held], const Registers (&decayed)[held]) {
    T sums[summed * states];
#pragma unroll
    for (int t = held - 1; t >= 0; --t) {
      const Step& now = steps[t];
      T* const db = sums + t % summed * states;
      typename Storage::ChannelVector dinput, ddecay;  // Σ_n g B, Σ_n rate g decay h
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, input] = now.inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          const T g = fma(now.dp.values[k], now.c.values[r], carried_[k][r]);
          db[r] = k == 0 ? input * g : fma(input, g, db[r]);
          dinput.values[k] = r == 0 ? g * now.b.values[r] : fma(g, now.b.values[r], dinput.values[k]);
          carried_[k][r] = decay[t][k][r] * g;
          const T through = decayed[t][k][r] * g;
          ddecay.values[k] = r == 0 ? through * rate_[k][r] : fma(through, rate_[k][r], ddecay.values[k]);
          rate_sum_[k][r] = fma(through, delta, rate_sum_[k][r]);
        }
      }
      put(dinput, 1, first + t);
      put(ddecay, 2, first + t);
      if (t % summed == 0) sum_over_channels(partial_.db, sums, first + t, present);
    }
  }

  /// Moves on to the preceding tile.
  __device__ __forceinline__ void end_tile() { coefficient_sum_ -= Tuning::steps * States; }

  __device__ __forceinline__ void put(const typename Storage::ChannelVector& sum, int kind, int t) {
    as_vector<typename Storage::ChannelVector>(storage_.sums[kind][tile_.warp][t][tile_.lane * channels]) = sum;
  }

  /// Sums dB or dC of steps from `first` of a tile over the channels of the block.
  __device__ __forceinline__ void sum_over_channels(T* to, T (&sums)[summed * states], int first, int present) const {
    const T sum = sum_swapped_over_lanes<summed, states>(sums, tile_.lane);
    if (writes_sum_ && first + sum_step_ < present) to[coefficient_sum_ + first * States] = sum;
  }

  /// Writes the gradient with respect to the initial states, and the thread's sums for a_log.
  __device__ __forceinline__ void write_states() const {
    const bool first_chunk = tile_.begin == 0 && scan_.dstate.data != nullptr;
#pragma unroll
    for (int k = 0; k < channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        if (!has(k, r)) continue;
        if (first_chunk) scan_.dstate.data[tile_.sequence * scan_.dstate.stride + state_offset(k, r)] = carried_[k][r];
        // dA/da_log = A
        partial_.da_log[part() * tile_.channels * States + tile_.parameter_offset(k, state(r))] =
            rate_[k][r] * std::numbers::ln2_v<T> * rate_sum_[k][r];
      }
    }
  }

  const Scan& scan_;
  const ScanCarry<T>& carry_;
  const ScanPartialSums<T>& partial_;
  Storage& storage_;
  Tile tile_;
  Index last_tile_;  // its first row

 private:
  Registers rate_, rate_sum_, carried_;  // rate_sum: Σ_t g Δ decay h; carried: c of backward.cuh
  int sum_step_;
  bool writes_sum_;
  Index coefficient_sum_;  // the offset of the thread's sums of dB and dC for the tile's first steps
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
