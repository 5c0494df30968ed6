#pragma once

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/cuda/selective_scan/tuning.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The body of the backward kernel of the selective scan; see cuda/selective_scan/backward.cuh.
namespace moe_mamba::cuda::detail {

/// What a thread does of a backward pass. In what concerns states it has some of one or two neighbouring channels, those
/// of its warp; in what is done once for each element, up to four neighbouring channels, of some rows. Where rows
/// allow it those are loaded and stored at once.
template <class C, class S, int States>
class ScanBackwardThread {
  using T = compute_t<C>;
  using Tuning = ScanBackwardTuning<T, States>;
  using Scan = SelectiveScanBackward<C, S, States>;
  using Own = ScanElements<Tuning>;
  using Loaded = Packed<C, Tuning::together>;
  static constexpr int states = Tuning::padded;  // of the thread, some of which may not be there
  static constexpr int holds = Tuning::steps / Tuning::held;

 public:
  using Storage = ScanBackwardStorage<T, Tuning>;

  __device__ __forceinline__ ScanBackwardThread(const Scan& scan, const ScanCarry<T>& carry,
                                                const ScanPartialSums<T>& partial, const ScanPassSums<C, 3>& sums,
                                                int first_state, bool loads_together, Storage& storage)
      : scan_(scan),
        carry_(carry),
        partial_(partial),
        storage_(storage),
        place_(scan.u.columns, scan.shape.length, carry.chunking, Tuning::width),
        channels_(scan.u.columns),
        first_state_(first_state),
        own_state_(first_state + place_.warp * Tuning::states),
        loads_together_(loads_together),
        inside_(static_cast<int>(
            max(Index{0}, min(Index{Tuning::together}, channels_ - place_.first_channel - Own::column())))),
        last_tile_(row(place_.end - 1 - (place_.end - 1) % Tuning::steps)),
        delta_(scan.delta, last_tile_ + Own::row(), place_.first_channel + Own::column()),
        u_(scan.u, last_tile_ + Own::row(), place_.first_channel + Own::column()),
        z_(scan.z, last_tile_ + Own::row(), place_.first_channel + Own::column()),
        dy_(scan.dy, last_tile_ + Own::row(), place_.first_channel + Own::column()),
        c_(scan.c, last_tile_ + Own::coefficient_row(), first_state + Own::state()),
        ddelta_(scan.ddelta, sums.of[0], last_tile_ + Own::row(), place_.first_channel + Own::column()),
        du_(scan.du, sums.of[1], last_tile_ + Own::row(), place_.first_channel + Own::column()),
        dz_(scan.dz, sums.of[2], last_tile_ + Own::row(), place_.first_channel + Own::column()) {}

  __device__ __forceinline__ void run() {
    start();
    int steps = static_cast<int>((place_.end - 1) % Tuning::steps) + 1;  // of the tile at work
    load(steps);
    for (Index first = place_.end - 1 - (place_.end - 1) % Tuning::piece; first >= place_.begin;
         first -= Tuning::piece) {
      const int tiles = ceiling_divide(static_cast<int>(min(Index{Tuning::piece}, place_.end - first)), Tuning::steps);
      T h[Tuning::channels][states];
      load_checkpoint(first, h);
      if (loads_together_) {
        prepare_piece<true>(first, tiles * Tuning::steps);
      } else {
        prepare_piece<false>(first, tiles * Tuning::steps);
      }
      __syncthreads();
      run_forward(h, tiles * holds);
      for (int tile = tiles - 1; tile >= 0; --tile) {
        prepare_tile();
        __syncthreads();
        if (tile > 0 || first > place_.begin) load(Tuning::steps);
        for (int part = holds - 1; part >= 0; --part) {
          if (tile + 1 < tiles || part + 1 < holds) load_start(tile * holds + part, h);
          go_and_return(tile, part * Tuning::held, h, steps);
        }
        sum_ -= Tuning::steps * States;
        __syncthreads();
        conclude(tile, steps);
        steps = Tuning::steps;
      }
    }
    finish();
  }

 private:
  /// Channel k of the thread, in what concerns states.
  __device__ __forceinline__ Index own_channel(int k) const {
    return place_.first_channel + place_.lane * Tuning::channels + k;
  }
  /// Its state r, counted from own_state_. Lanes from 16 on have them in another order, see sum_swapped_over_lanes.
  __device__ __forceinline__ int state(int r) const { return r ^ (place_.lane / 16 * (states / 2)); }
  __device__ __forceinline__ int copy() const { return Tuning::copies == 1 ? 0 : place_.lane / 16; }
  __device__ __forceinline__ bool has(int n) const {
    return Tuning::states == 3 ? n < 3 && (Tuning::exact || own_state_ + n < States)
                               : Tuning::exact || own_state_ + n < States;
  }
  __device__ __forceinline__ bool owns(int k, int r) const { return own_channel(k) < channels_ && has(state(r)); }
  __device__ __forceinline__ Index offset(int k, int r) const {
    return (own_state_ + state(r)) * channels_ + own_channel(k);
  }
  __device__ __forceinline__ Index row(Index step) const { return place_.sequence * scan_.shape.length + step; }
  __device__ __forceinline__ Index part() const { return place_.sequence * carry_.chunking.count + place_.chunk; }
  __device__ __forceinline__ bool first_pass() const { return Tuning::passes == 1 || first_state_ == 0; }
  __device__ __forceinline__ bool last_pass() const {
    return Tuning::passes == 1 || first_state_ + Tuning::pass >= States;
  }

  static __device__ __forceinline__ void put_coefficient(typename Storage::States (&row)[Tuning::copies][Tuning::warps],
                                                         C loaded) {
    const T value = static_cast<T>(loaded);
#pragma unroll
    for (int copy = 0; copy < Tuning::copies; ++copy)
      row[copy][Own::group()].values[Own::place() ^ (copy * (states / 2))] = value;
  }

  __device__ __forceinline__ void start() {
    const T* from = scan_.dstate.data == nullptr ? nullptr : scan_.dstate.data + place_.sequence * scan_.dstate.stride;
    if (carry_.states != nullptr) from = carry_.states + part() * States * channels_;
#pragma unroll
    for (int k = 0; k < Tuning::channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        carried_[k][r] = from != nullptr && owns(k, r) ? from[offset(k, r)] : T(0);
        rate_[k][r] = owns(k, r) ? decay_rate<T>(scan_.a_log[own_channel(k) * States + own_state_ + state(r)]) : T(0);
        rate_sum_[k][r] = T(0);
      }
    }
#pragma unroll
    for (int j = 0; j < Tuning::together; ++j) {
      const Index channel = place_.first_channel + Own::column() + j;
      bias_.values[j] = j < inside_ ? static_cast<T>(scan_.delta_bias[channel]) : T(0);
      // What the skip adds is added once, in the first pass.
      d_.values[j] = j < inside_ && first_pass() ? static_cast<T>(scan_.d[channel]) : T(0);
    }
    // Of dB and dC, a warp's sums go straight to memory. Which of them a lane gets: see sum_swapped_over_lanes.
    constexpr int lanes = warp_size / Tuning::copies, half = states / Tuning::copies;
    constexpr int alike = lanes / (Tuning::summed_steps * half);  // lanes with the same sum
    const int index = place_.lane % lanes / alike, n = state(index % half);
    sum_step_ = index / half;
    writes_sum_ = place_.lane % alike == 0 && has(n);
    sum_ = (place_.first_channel / Tuning::width * scan_.shape.tokens() + last_tile_ + sum_step_) * States +
           own_state_ + n;
  }

  /// Δ, Δ u and B of a piece. Steps from the end of the sequence to that of the last tile are as if they were not there.
  template <bool Together>
  __device__ __forceinline__ void prepare_piece(Index first, int steps) {
    RowCursor<const C, Tuning::rows_apart> delta(scan_.delta, row(first + Own::row()),
                                                 place_.first_channel + Own::column());
    RowCursor<const C, Tuning::rows_apart> u(scan_.u, row(first + Own::row()), place_.first_channel + Own::column());
    constexpr int rows_at_once = Tuning::coefficient_rows_apart, coefficients = Tuning::piece / rows_at_once;
    RowCursor<const C, rows_at_once> b(scan_.b, row(first + Own::coefficient_row()), first_state_ + Own::state());
    const int here = static_cast<int>(min(Index{Tuning::piece}, place_.end - first));
    C b_values[coefficients];
#pragma unroll
    for (int i = 0; i < coefficients; ++i) {
      b_values[i] = Own::template has_state<States>(first_state_) && Own::coefficient_row() + i * rows_at_once < here
                        ? *b.at
                        : C{};
      b.move(1);
    }
    constexpr int batch = 4;
    for (int start = Own::row(); start < steps; start += batch * Tuning::rows_apart) {
      Loaded deltas[batch], us[batch];  // all on their way before the first is needed
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int present = start + i * Tuning::rows_apart < here ? inside_ : 0;
        deltas[i] = broadcast<C, Tuning::together>(no_step<T>), us[i] = {};
        delta.template load<Together>(deltas[i], present);
        u.template load<Together>(us[i], present);
        delta.move(1), u.move(1);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int t = start + i * Tuning::rows_apart;
        const typename Storage::Elements delta_values = widen(deltas[i]), u_values = widen(us[i]);
        Vector<T, 2 * Tuning::together> inputs;
#pragma unroll
        for (int j = 0; j < Tuning::together; ++j) {
          const T step = softplus_of<C>(delta_values.values[j] + bias_.values[j]);
          inputs.values[2 * j] = step;
          inputs.values[2 * j + 1] = step * u_values.values[j];
        }
        as_vector<Vector<T, 2 * Tuning::together>>(storage_.inputs[t][Own::column()]) = inputs;
      }
    }
#pragma unroll
    for (int i = 0; i < coefficients; ++i)
      put_coefficient(storage_.b[Own::coefficient_row() + i * rows_at_once], b_values[i]);
  }

  /// The states in front of step `first`.
  __device__ __forceinline__ void load_checkpoint(Index first, T (&h)[Tuning::channels][states]) const {
    const Index pieces = ceiling_divide(scan_.shape.length, scan_checkpoint_interval);
    const T* const checkpoint =
        scan_.checkpoints + (place_.sequence * pieces + first / Tuning::piece) * States * channels_;
#pragma unroll
    for (int k = 0; k < Tuning::channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) h[k][r] = owns(k, r) ? checkpoint[offset(k, r)] : T(0);
    }
  }

  using InputsOfThread = Vector<ScanInput<T>, Tuning::channels>;
  __device__ __forceinline__ InputsOfThread inputs_at(int t) const {
    return as_vector<InputsOfThread>(storage_.inputs[t][place_.lane * Tuning::channels]);
  }

  /// From the states in front of a piece to those in front of its last steps that are held together.
  __device__ __forceinline__ void run_forward(T (&h)[Tuning::channels][states], int parts) {
    for (int part = 0; part + 1 < parts; ++part) {
#pragma unroll
      for (int k = 0; k < Tuning::channels; ++k) {
        typename Storage::States start;
#pragma unroll
        for (int r = 0; r < states; ++r) start.values[r] = h[k][r];
        storage_.starts[part][k][threadIdx.x] = start;
      }
#pragma unroll
      for (int i = 0; i < Tuning::held; ++i) {
        const auto inputs = inputs_at(part * Tuning::held + i);
        const auto b = storage_.b[part * Tuning::held + i][copy()][place_.warp];
#pragma unroll
        for (int k = 0; k < Tuning::channels; ++k) {
#pragma unroll
          for (int r = 0; r < states; ++r) {
            const T decay = power_of_two(inputs.values[k].delta * rate_[k][r]);
            h[k][r] = fma(decay, h[k][r], inputs.values[k].u * b.values[r]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void load_start(int part, T (&h)[Tuning::channels][states]) const {
#pragma unroll
    for (int k = 0; k < Tuning::channels; ++k) {
      const auto start = storage_.starts[part][k][threadIdx.x];
#pragma unroll
      for (int r = 0; r < states; ++r) h[k][r] = start.values[r];
    }
  }

  /// Asks for the rows of the tile in front of the one before, of `steps` steps.
  __device__ __forceinline__ void load(int steps) {
    next_.c = Own::template has_state<States>(first_state_) && Own::coefficient_row() < steps ? *c_.at : C{};
    c_.move(-1);
    if (loads_together_) {
      load_rows<true>(steps);
    } else {
      load_rows<false>(steps);
    }
    constexpr int back = -2 * Tuning::rows;  // from behind a tile to the one before it
    delta_.move(back), u_.move(back), z_.move(back), dy_.move(back);
  }

  template <bool Together>
  __device__ __forceinline__ void load_rows(int steps) {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int present = Own::row() + i * Tuning::rows_apart < steps ? inside_ : 0;
      delta_.template load<Together>(next_.delta[i], present);
      u_.template load<Together>(next_.u[i], present);
      z_.template load<Together>(next_.z[i], present);
      dy_.template load<Together>(next_.dy[i], present);
      delta_.move(1), u_.move(1), z_.move(1), dy_.move(1);
    }
  }

  /// What a tile needs besides, and what its end needs.
  __device__ __forceinline__ void prepare_tile() {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const typename Storage::Elements z = widen(next_.z[i]), dy = widen(next_.dy[i]), delta = widen(next_.delta[i]);
      typename Storage::Elements dp;
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) {
        const auto gate = silu_and_slope_of<C>(z.values[j]);
        dp.values[j] = dy.values[j] * gate.value;
        dgate_[i].values[j] = dy.values[j] * gate.slope;
        slope_[i].values[j] = sigmoid_of<C>(delta.values[j] + bias_.values[j]);
      }
      tile_u_[i] = next_.u[i];
      as_vector<typename Storage::Elements>(storage_.dp[Own::row() + i * Tuning::rows_apart][Own::column()]) = dp;
    }
    if (Own::coefficient_row() < Tuning::steps) put_coefficient(storage_.c[Own::coefficient_row()], next_.c);
  }

  /// What a thread reads of a step.
  struct Step {
    InputsOfThread inputs;
    typename Storage::Channels dp;
    typename Storage::States b, c;
  };
  __device__ __forceinline__ Step step_at(int tile, int t) const {
    return {inputs_at(tile * Tuning::steps + t),
            as_vector<typename Storage::Channels>(storage_.dp[t][place_.lane * Tuning::channels]),
            storage_.b[tile * Tuning::steps + t][copy()][place_.warp], storage_.c[t][copy()][place_.warp]};
  }

  /// Forward through steps of a tile from the states in front of them, keeping decays and what is left of states, and
  /// back. All are read at first, once for both ways: the compiler moves no load from shared memory across a store.
  __device__ __forceinline__ void go_and_return(int tile, int first, T (&h)[Tuning::channels][states], int present) {
    using Channels = typename Storage::Channels;
    constexpr int held = Tuning::held, channels = Tuning::channels, summed = Tuning::summed_steps;
    const int group = place_.warp, own = place_.lane * channels;
    T decay[held][channels][states], left[held][channels][states];  // left: decay h
    T sums[summed * states];
    Step steps[held];
#pragma unroll
    for (int t = 0; t < held; ++t) steps[t] = step_at(tile, first + t);
#pragma unroll
    for (int t = 0; t < held; ++t) {
      const Step& now = steps[t];
      T* const dc = sums + t % summed * states;
      Channels output;
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, drive] = now.inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          decay[t][k][r] = power_of_two(delta * rate_[k][r]);
          left[t][k][r] = decay[t][k][r] * h[k][r];
          h[k][r] = fma(drive, now.b.values[r], left[t][k][r]);
          output.values[k] = r == 0 ? now.c.values[r] * h[k][r] : fma(now.c.values[r], h[k][r], output.values[k]);
          dc[r] = k == 0 ? now.dp.values[k] * h[k][r] : fma(now.dp.values[k], h[k][r], dc[r]);
        }
      }
      as_vector<Channels>(storage_.parts[0][group][first + t][own]) = output;
      if ((t + 1) % summed == 0) put_sum(partial_.dc, sums, first + t + 1 - summed, present);
    }
#pragma unroll
    for (int t = held - 1; t >= 0; --t) {
      const Step& now = steps[t];
      T* const db = sums + t % summed * states;
      Channels input, decays;
#pragma unroll
      for (int k = 0; k < channels; ++k) {
        const auto [delta, drive] = now.inputs.values[k];
#pragma unroll
        for (int r = 0; r < states; ++r) {
          const T g = fma(now.dp.values[k], now.c.values[r], carried_[k][r]);
          db[r] = k == 0 ? drive * g : fma(drive, g, db[r]);
          input.values[k] = r == 0 ? g * now.b.values[r] : fma(g, now.b.values[r], input.values[k]);
          carried_[k][r] = decay[t][k][r] * g;
          const T through = left[t][k][r] * g;
          decays.values[k] = r == 0 ? through * rate_[k][r] : fma(through, rate_[k][r], decays.values[k]);
          rate_sum_[k][r] = fma(through, delta, rate_sum_[k][r]);
        }
      }
      as_vector<Channels>(storage_.parts[1][group][first + t][own]) = input;
      as_vector<Channels>(storage_.parts[2][group][first + t][own]) = decays;
      if (t % summed == 0) put_sum(partial_.db, sums, first + t, present);
    }
  }

  /// Sums dB or dC of steps from `first` of a tile over the channels of the block.
  __device__ __forceinline__ void put_sum(T* to, T (&sums)[Tuning::summed_steps * states], int first,
                                          int present) const {
    const T sum = sum_swapped_over_lanes<Tuning::summed_steps, states>(sums, place_.lane);
    if (writes_sum_ && first + sum_step_ < present) to[sum_ + first * States] = sum;
  }

  /// Adds up the parts of a tile and writes what belongs to its steps.
  __device__ __forceinline__ void conclude(int tile, int steps) {
    using Elements = typename Storage::Elements;
    constexpr T ln2 = std::numbers::ln2_v<T>;  // rates are exponents of 2
    Elements ddelta[Tuning::rows], du[Tuning::rows], dz[Tuning::rows];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Own::row() + i * Tuning::rows_apart;
      const auto inputs =
          as_vector<Vector<T, 2 * Tuning::together>>(storage_.inputs[tile * Tuning::steps + t][Own::column()]);
      const Elements dp = as_vector<Elements>(storage_.dp[t][Own::column()]), u = widen(tile_u_[i]);
      Elements output, input, decays;
#pragma unroll
      for (int group = 0; group < Tuning::warps; ++group) {
        const Elements outputs = as_vector<Elements>(storage_.parts[0][group][t][Own::column()]);
        const Elements inputs_of = as_vector<Elements>(storage_.parts[1][group][t][Own::column()]);
        const Elements decays_of = as_vector<Elements>(storage_.parts[2][group][t][Own::column()]);
#pragma unroll
        for (int j = 0; j < Tuning::together; ++j) {
          output.values[j] = group == 0 ? outputs.values[j] : output.values[j] + outputs.values[j];
          input.values[j] = group == 0 ? inputs_of.values[j] : input.values[j] + inputs_of.values[j];
          decays.values[j] = group == 0 ? decays_of.values[j] : decays.values[j] + decays_of.values[j];
        }
      }
#pragma unroll
      for (int j = 0; j < Tuning::together; ++j) {
        const T delta = inputs.values[2 * j];
        ddelta[i].values[j] = fma(ln2, decays.values[j], u.values[j] * input.values[j]) * slope_[i].values[j];
        du[i].values[j] = fma(delta, input.values[j], d_.values[j] * dp.values[j]);
        dz[i].values[j] = dgate_[i].values[j] * fma(d_.values[j], u.values[j], output.values[j]);
        dd_.values[j] = fma(dp.values[j], u.values[j], dd_.values[j]);
        dbias_.values[j] += t < steps ? ddelta[i].values[j] : T(0);
      }
    }
    if (loads_together_) {
      store_rows<true>(ddelta, du, dz, steps);
    } else {
      store_rows<false>(ddelta, du, dz, steps);
    }
    constexpr int back = -2 * Tuning::rows;
    ddelta_.move(back), du_.move(back), dz_.move(back);
  }

  template <bool Together>
  __device__ __forceinline__ void store_rows(const typename Storage::Elements (&ddelta)[Tuning::rows],
                                             const typename Storage::Elements (&du)[Tuning::rows],
                                             const typename Storage::Elements (&dz)[Tuning::rows], int steps) {
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int present = Own::row() + i * Tuning::rows_apart < steps ? inside_ : 0;
      ddelta_.template add<Together>(ddelta[i], present, first_pass(), last_pass());
      du_.template add<Together>(du[i], present, first_pass(), last_pass());
      dz_.template add<Together>(dz[i], present, first_pass(), last_pass());
      ddelta_.move(1), du_.move(1), dz_.move(1);
    }
  }

  __device__ __forceinline__ void finish() {
    const bool first_chunk = place_.begin == 0 && scan_.dstate.data != nullptr;
#pragma unroll
    for (int k = 0; k < Tuning::channels; ++k) {
#pragma unroll
      for (int r = 0; r < states; ++r) {
        if (!owns(k, r)) continue;
        if (first_chunk) scan_.dstate.data[place_.sequence * scan_.dstate.stride + offset(k, r)] = carried_[k][r];
        // dA/da_log = A
        partial_.da_log[(part() * channels_ + own_channel(k)) * States + own_state_ + state(r)] =
            rate_[k][r] * std::numbers::ln2_v<T> * rate_sum_[k][r];
      }
    }
    // What the rows of a channel found is added in their order.
    __syncthreads();
    as_vector<typename Storage::Elements>(storage_.parts[0][0][Own::row()][Own::column()]) = dd_;
    as_vector<typename Storage::Elements>(storage_.parts[1][0][Own::row()][Own::column()]) = dbias_;
    __syncthreads();
    for (int column = static_cast<int>(threadIdx.x); column < Tuning::width; column += Tuning::threads) {
      if (place_.first_channel + column >= channels_) break;
      T dd = T(0), dbias = T(0);
      for (int row = 0; row < Tuning::rows_apart; ++row) {
        dd += storage_.parts[0][0][row][column];
        dbias += storage_.parts[1][0][row][column];
      }
      const Index at = part() * channels_ + place_.first_channel + column;
      if (first_pass()) partial_.dd[at] = dd;
      partial_.dbias[at] = first_pass() ? dbias : partial_.dbias[at] + dbias;
    }
  }

  const Scan& scan_;
  const ScanCarry<T>& carry_;
  const ScanPartialSums<T>& partial_;
  Storage& storage_;
  ScanPlace place_;
  Index channels_;
  int first_state_;  // of the pass
  int own_state_;    // the thread's first one
  bool loads_together_;
  int inside_;  // so many of its columns are there
  T rate_[Tuning::channels][states];
  T rate_sum_[Tuning::channels][states];  // Σ_t g Δ decay h
  T carried_[Tuning::channels][states];   // the gradient that comes from later steps
  typename Storage::Elements bias_, d_, dd_ = {}, dbias_ = {};
  Index last_tile_;  // the row that it begins with
  RowCursor<const C, Tuning::rows_apart> delta_, u_, z_, dy_;
  RowCursor<const C, Tuning::steps> c_;
  OutputCursor<C, ScanPassSums<C, 3>::apart(Tuning::passes), Tuning::rows_apart> ddelta_, du_, dz_;
  int sum_step_;
  bool writes_sum_;
  Index sum_;  // where the thread's sum of the tile's first steps goes
  struct {
    Loaded delta[Tuning::rows], u[Tuning::rows], z[Tuning::rows], dy[Tuning::rows];
    C c;
  } next_ = {};  // the tile that was asked for; steps behind the last are zero, for which there is no gradient
  // dy silu'(z), the slope of softplus and u of the tile at work
  typename Storage::Elements dgate_[Tuning::rows], slope_[Tuning::rows];
  Loaded tile_u_[Tuning::rows];
};

}  // namespace moe_mamba::cuda::detail
