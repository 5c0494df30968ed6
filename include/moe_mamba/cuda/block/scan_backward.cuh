#pragma once

#include "moe_mamba/cuda/block/lane_sums.cuh"
#include "moe_mamba/cuda/block/scan_tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The body of the backward kernel of the selective scan; see cuda/selective_scan_backward.cuh.
namespace moe_mamba::cuda::detail {

/// What a thread does of a backward pass: its states of one channel in one chunk.
template <class C, class S, int States>
class ScanBackwardThread {
  using Tuning = ScanBackwardTuning<C, States>;
  using Scan = SelectiveScanBackward<C, S, States>;

 public:
  using Storage = ScanBackwardStorage<C, Tuning>;

  __device__ __forceinline__ ScanBackwardThread(const Scan& scan, const ScanCarry<C>& carry,
                                                const ScanPartialSums<C>& partial, int first_state, Storage& storage)
      : scan_(scan),
        carry_(carry),
        partial_(partial),
        storage_(storage),
        place_(scan.u.columns, scan.shape.length, carry.chunking, Tuning::width),
        channels_(scan.u.columns),
        group_(place_.warp % Tuning::warps),
        half_(place_.warp / Tuning::warps),
        column_(half_ * warp_size + place_.lane),
        channel_(place_.channel + half_ * warp_size),
        inside_(channel_ < channels_),
        first_state_(first_state),
        own_state_(first_state + group_ * Tuning::states),
        last_tile_(row(place_.end - 1 - (place_.end - 1) % Tuning::steps)),
        delta_(scan.delta, last_tile_ + group_, channel_),
        z_(scan.z, last_tile_ + group_, channel_),
        dy_(scan.dy, last_tile_ + group_, channel_),
        c_(scan.c, last_tile_ + threadIdx.x / Tuning::pass, first_state + threadIdx.x % Tuning::pass),
        ddelta_(scan.ddelta, last_tile_ + group_, channel_),
        du_(scan.du, last_tile_ + group_, channel_),
        dz_(scan.dz, last_tile_ + group_, channel_) {}

  __device__ __forceinline__ void run() {
    start();
    int steps = static_cast<int>((place_.end - 1) % Tuning::steps) + 1;  // of the tile at work
    load(steps);
    for (Index first = place_.end - 1 - (place_.end - 1) % Tuning::piece; first >= place_.begin;
         first -= Tuning::piece) {
      const int tiles =
          static_cast<int>(min(Index{Tuning::piece}, place_.end - first) + Tuning::steps - 1) / Tuning::steps;
      C h[Tuning::states];
      load_checkpoint(first, h);
      prepare_piece(first, tiles * Tuning::steps);
      __syncthreads();
      run_forward(h, tiles);
      for (int tile = tiles - 1; tile >= 0; --tile) {
        prepare_tile();
        __syncthreads();
        if (tile > 0 || first > place_.begin) load(Tuning::steps);
        go_and_return(tile);
        __syncthreads();
        conclude(tile, steps);
        steps = Tuning::steps;
      }
    }
    finish();
  }

 private:
  __device__ __forceinline__ bool owns(int r) const { return inside_ && own_state_ + r < States; }
  __device__ __forceinline__ Index offset(int r) const { return (own_state_ + r) * channels_ + channel_; }
  __device__ __forceinline__ Index row(Index step) const { return place_.sequence * scan_.shape.length + step; }
  __device__ __forceinline__ Index part() const { return place_.sequence * carry_.chunking.count + place_.chunk; }

  __device__ __forceinline__ void start() {
    const C* from = scan_.dstate.data == nullptr ? nullptr : scan_.dstate.data + place_.sequence * scan_.dstate.stride;
    if (carry_.states != nullptr) from = carry_.states + part() * States * channels_;
    for (int r = 0; r < Tuning::states; ++r) {
      carried_[r] = from != nullptr && owns(r) ? from[offset(r)] : C(0);
      rate_[r] = owns(r) ? decay_rate<C>(scan_.a_log[channel_ * States + own_state_ + r]) : C(0);
      rate_sum_[r] = C(0);
    }
    bias_ = inside_ ? static_cast<C>(scan_.delta_bias[channel_]) : C(0);
    // What the skip adds is added once, in the first pass.
    d_ = inside_ && first_pass() ? static_cast<C>(scan_.d[channel_]) : C(0);
    const Index tokens = scan_.shape.tokens(), group = (channel_ - column_) / Tuning::width;
#pragma unroll
    for (int i = 0; i < Tuning::elements; ++i) {
      const int index = static_cast<int>(threadIdx.x) + i * Tuning::threads, n = index % Tuning::pass;
      C* const parts = is_dc(index) ? partial_.dc : partial_.db;
      elements_[i] = parts + (group * tokens + last_tile_ + step_of(index)) * States + first_state_ + n;
    }
  }

  /// Where an element of dB and dC of a tile belongs.
  static __device__ __forceinline__ bool is_dc(int index) { return index >= Tuning::steps * Tuning::pass; }
  static __device__ __forceinline__ int step_of(int index) { return index / Tuning::pass % Tuning::steps; }
  __device__ __forceinline__ bool first_pass() const { return Tuning::passes == 1 || first_state_ == 0; }

  /// Δ, u and B of a piece. Steps from the end of the sequence to that of the last tile are as if they were not there.
  __device__ __forceinline__ void prepare_piece(Index first, int steps) {
    RowCursor<const C, Tuning::warps> delta(scan_.delta, row(first + group_), channel_);
    RowCursor<const C, Tuning::warps> u(scan_.u, row(first + group_), channel_);
    const int here = inside_ ? static_cast<int>(min(Index{Tuning::piece}, place_.end - first)) : 0;
    constexpr int batch = 8, coefficients = Tuning::piece * Tuning::pass / Tuning::threads;
    C b[coefficients];
#pragma unroll
    for (int i = 0; i < coefficients; ++i) {
      const int index = static_cast<int>(threadIdx.x) + i * Tuning::threads;
      const int t = index / Tuning::pass, n = first_state_ + index % Tuning::pass;
      const bool present = first + t < place_.end && (Tuning::exact || n < States);
      b[i] = present ? scan_.b.data[row(first + t) * scan_.b.stride + n] : C(0);
    }
    for (int start = group_; start < steps; start += batch * Tuning::warps) {
      ScanInput<C> inputs[batch];  // all on their way before the first is needed
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const bool present = start + i * Tuning::warps < here;
        inputs[i] = {present ? *delta.at : C(0), present ? *u.at : C(0)};
        delta.move(1), u.move(1);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int t = start + i * Tuning::warps;
        const C step = softplus_of(inputs[i].delta + bias_);
        storage_.inputs[t][column_] = {t < here ? step : C(0), inputs[i].u};
      }
    }
#pragma unroll
    for (int i = 0; i < coefficients; ++i) {
      const int index = static_cast<int>(threadIdx.x) + i * Tuning::threads;
      const int t = index / Tuning::pass, n = index % Tuning::pass;
      storage_.b[t][n / Tuning::states].of[n % Tuning::states] = b[i];
    }
  }

  /// The states in front of step `first`.
  __device__ __forceinline__ void load_checkpoint(Index first, C (&h)[Tuning::states]) const {
    const Index pieces = (scan_.shape.length + Tuning::piece - 1) / Tuning::piece;
    const C* const checkpoint =
        scan_.checkpoints + (place_.sequence * pieces + first / Tuning::piece) * States * channels_;
#pragma unroll
    for (int r = 0; r < Tuning::states; ++r) h[r] = owns(r) ? checkpoint[offset(r)] : C(0);
  }

  /// From the states in front of a piece through all its tiles but the last.
  __device__ __forceinline__ void run_forward(C (&h)[Tuning::states], int tiles) {
    for (int tile = 0;; ++tile) {
#pragma unroll
      for (int r = 0; r < Tuning::states; ++r) storage_.starts[tile][r][threadIdx.x] = h[r];
      if (tile + 1 == tiles) break;
#pragma unroll
      for (int i = 0; i < Tuning::steps; ++i) {
        const auto input = storage_.inputs[tile * Tuning::steps + i][column_];
        const auto b = storage_.b[tile * Tuning::steps + i][group_];
        const C drive = input.delta * input.u;
#pragma unroll
        for (int r = 0; r < Tuning::states; ++r) {
          h[r] = fma(power_of_two(input.delta * rate_[r]), h[r], drive * b.of[r]);
        }
      }
    }
  }

  /// Asks for the rows of the tile in front of the one before, of `steps` steps; the others read as zero.
  __device__ __forceinline__ void load(int steps) {
    const int thread = static_cast<int>(threadIdx.x), n = first_state_ + thread % Tuning::pass;
    next_.c = thread / Tuning::pass < steps && (Tuning::exact || n < States) ? *c_.at : C(0);
    c_.move(-1);
    if (!inside_) steps = 0;
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const bool here = group_ + i * Tuning::warps < steps;
      next_.delta[i] = here ? *delta_.at : C(0);
      next_.z[i] = here ? *z_.at : C(0);
      next_.dy[i] = here ? *dy_.at : C(0);
      delta_.move(1), z_.move(1), dy_.move(1);
    }
    delta_.move(back), z_.move(back), dy_.move(back);
  }

  /// What a tile needs besides, and what its end needs.
  __device__ __forceinline__ void prepare_tile() {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const auto gate = silu_and_slope_of(next_.z[i]);
      const int t = group_ + i * Tuning::warps;
      storage_.dp[t][column_] = next_.dy[i] * gate.value;
      dgate_[i] = next_.dy[i] * gate.slope;
      slope_[i] = sigmoid_of(next_.delta[i] + bias_);
    }
    const int thread = static_cast<int>(threadIdx.x), t = thread / Tuning::pass, n = thread % Tuning::pass;
    if (t < Tuning::steps) storage_.c[t][n / Tuning::states].of[n % Tuning::states] = next_.c;
  }

  /// Forward through a tile, keeping the states, and back. Decays are computed both ways: to keep them takes more registers
  /// than there are.
  __device__ __forceinline__ void go_and_return(int tile) {
    constexpr int steps = Tuning::steps, states = Tuning::states, summed = Tuning::summed_steps;
    C h[steps + 1][states];  // h[t]: the state in front of step t
#pragma unroll
    for (int r = 0; r < states; ++r) h[0][r] = storage_.starts[tile][r][threadIdx.x];
#pragma unroll
    for (int t = 0; t < steps; ++t) {
      const auto [delta, u] = storage_.inputs[tile * steps + t][column_];
      const auto b = storage_.b[tile * steps + t][group_], c = storage_.c[t][group_];
      const C drive = delta * u;
      C output = C(0);
#pragma unroll
      for (int r = 0; r < states; ++r) {
        h[t + 1][r] = fma(power_of_two(delta * rate_[r]), h[t][r], drive * b.of[r]);
        output = fma(c.of[r], h[t + 1][r], output);
      }
      storage_.parts[0][group_][t][column_] = output;
    }
#pragma unroll
    for (int end = steps; end > 0; end -= summed) {
      C db[Tuning::sums] = {}, dc[Tuning::sums] = {};
#pragma unroll
      for (int i = summed - 1; i >= 0; --i) {
        const int t = end - summed + i;
        const auto [delta, u] = storage_.inputs[tile * steps + t][column_];
        const auto b = storage_.b[tile * steps + t][group_], c = storage_.c[t][group_];
        const C dp = storage_.dp[t][column_], drive = delta * u;
        C input = C(0), decays = C(0);
#pragma unroll
        for (int r = 0; r < states; ++r) {
          const C g = fma(dp, c.of[r], carried_[r]);
          dc[i * Tuning::padded + r] = dp * h[t + 1][r];
          db[i * Tuning::padded + r] = drive * g;
          input = fma(g, b.of[r], input);
          carried_[r] = power_of_two(delta * rate_[r]) * g;
          const C through = carried_[r] * h[t][r];
          decays = fma(through, rate_[r], decays);
          rate_sum_[r] = fma(through, delta, rate_sum_[r]);
        }
        storage_.parts[1][group_][t][column_] = input;
        storage_.parts[2][group_][t][column_] = decays;
      }
      constexpr int lanes = warp_size / Tuning::sums;  // that end with the same sum
      const C db_sum = sum_over_lanes<Tuning::sums>(db, place_.lane);
      const C dc_sum = sum_over_lanes<Tuning::sums>(dc, place_.lane);
      if (place_.lane % lanes == 0) {
        const int at = (end - summed) * Tuning::padded + place_.lane / lanes;
        storage_.sums[0][half_][group_][at] = db_sum;
        storage_.sums[1][half_][group_][at] = dc_sum;
      }
    }
  }

  /// Adds up the parts of a tile and writes what belongs to its steps.
  __device__ __forceinline__ void conclude(int tile, int steps) {
    constexpr C ln2 = std::numbers::ln2_v<C>;  // rates are exponents of 2
#pragma unroll
    for (int i = 0; i < Tuning::elements; ++i) {
      const int index = static_cast<int>(threadIdx.x) + i * Tuning::threads, n = index % Tuning::pass;
      C& to = *elements_[i];
      elements_[i] -= Tuning::steps * States;
      if (index >= 2 * Tuning::steps * Tuning::pass || step_of(index) >= steps) continue;
      if (!Tuning::exact && first_state_ + n >= States) continue;
      C sum = C(0);
#pragma unroll
      for (int half = 0; half < Tuning::width / warp_size; ++half) {
        sum +=
            storage_.sums[is_dc(index)][half][n / Tuning::states][step_of(index) * Tuning::padded + n % Tuning::states];
      }
      to = sum;
    }
    if (!inside_) return;
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = group_ + i * Tuning::warps;
      const auto [delta, u] = storage_.inputs[tile * Tuning::steps + t][column_];
      const C dp = storage_.dp[t][column_];
      C output = d_ * u, input = C(0), decays = C(0);
#pragma unroll
      for (int group = 0; group < Tuning::warps; ++group) {
        output += storage_.parts[0][group][t][column_];
        input += storage_.parts[1][group][t][column_];
        decays += storage_.parts[2][group][t][column_];
      }
      const C ddelta = fma(ln2, decays, u * input) * slope_[i];
      const auto put = [&](RowCursor<C, Tuning::warps>& cursor, C value) {
        if (t < steps) *cursor.at = first_pass() ? value : *cursor.at + value;
        cursor.move(1);
      };
      put(ddelta_, ddelta);
      put(du_, fma(delta, input, d_ * dp));
      put(dz_, dgate_[i] * output);
      if (t >= steps) continue;
      dd_ = fma(dp, u, dd_);
      dbias_ += ddelta;
    }
    ddelta_.move(back), du_.move(back), dz_.move(back);
  }

  __device__ __forceinline__ void finish() {
    const bool first_chunk = place_.begin == 0 && scan_.dstate.data != nullptr;
    for (int r = 0; r < Tuning::states; ++r) {
      if (!owns(r)) continue;
      if (first_chunk) scan_.dstate.data[place_.sequence * scan_.dstate.stride + offset(r)] = carried_[r];
      // dA/da_log = A
      partial_.da_log[(part() * channels_ + channel_) * States + own_state_ + r] =
          rate_[r] * std::numbers::ln2_v<C> * rate_sum_[r];
    }
    // The warps of a channel add what they found, one after the other.
    C &dd = storage_.dp[0][column_], &dbias = storage_.dp[1][column_];
    for (int group = 0; group < Tuning::warps; ++group) {
      __syncthreads();
      if (group_ != group) continue;
      dd = group == 0 ? dd_ : dd + dd_;
      dbias = group == 0 ? dbias_ : dbias + dbias_;
      if (group + 1 < Tuning::warps || !inside_) continue;
      const Index at = part() * channels_ + channel_;
      if (first_pass()) partial_.dd[at] = dd;
      partial_.dbias[at] = first_pass() ? dbias : partial_.dbias[at] + dbias;
    }
  }

  static constexpr int back = -2 * Tuning::rows;  // from behind a tile to the one before it

  const Scan& scan_;
  const ScanCarry<C>& carry_;
  const ScanPartialSums<C>& partial_;
  Storage& storage_;
  ScanPlace place_;
  Index channels_;
  int group_;   // of states
  int half_;    // of channels
  int column_;  // the channel's place in the block
  Index channel_;
  bool inside_;
  int first_state_;  // of the pass
  int own_state_;    // the thread's first one
  C bias_, d_;
  C rate_[Tuning::states], rate_sum_[Tuning::states];  // rate_sum: Σ_t g Δ decay h
  C carried_[Tuning::states];                          // the gradient that comes from later steps
  C dd_ = C(0), dbias_ = C(0);
  Index last_tile_;  // the row that it begins with
  RowCursor<const C, Tuning::warps> delta_, z_, dy_;
  RowCursor<const C, Tuning::steps> c_;
  RowCursor<C, Tuning::warps> ddelta_, du_, dz_;
  C* elements_[Tuning::elements];
  struct {
    C delta[Tuning::rows], z[Tuning::rows], dy[Tuning::rows], c;
  } next_;                                       // the tile that was asked for
  C dgate_[Tuning::rows], slope_[Tuning::rows];  // dy silu'(z) and the slope of softplus, of the tile at work
};

}  // namespace moe_mamba::cuda::detail
