#pragma once

#include <numbers>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/rounding.cuh"
#include "moe_mamba/cuda/common/row_cursor.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/selective_scan/backward_states.cuh"
#include "moe_mamba/cuda/selective_scan/tile.cuh"
#include "moe_mamba/ops/selective_scan.hpp"

/// The kernels of the selective scan's backward pass. With the symbols of forward.cuh, p = Σ_n C h + d u and y = p
/// silu(z); g is the gradient with respect to h, including all later steps, and c the contribution of these:
///
///   dp = dy silu(z)                     dz = dy silu'(z) p
///   g = c + dp C,  c ← decay g          dC = Σ_e dp h,  dB = Σ_e Δ u g
///   du = Δ Σ_n g B + d dp               ddelta = softplus'(delta + bias) (u Σ_n g B + ln2 Σ_n rate g decay h)
///   da_log = A Σ_t Δ g decay h          dd = Σ_t dp u,  ddelta_bias = Σ_t ddelta
///
/// A block processes its chunk from the last segment to the first. States are recomputed rather than stored: from the
/// checkpoint once through the segment, saving the states before each group of `held` steps in shared memory, then
/// group by group in registers. Tile i, counted down, is computed while tile i - 1 is prefetched:
///
///   load_inputs(last tile)
///   for each segment, from the last:
///     load_checkpoint, stage_segment       Δ, Δ u and B of all its steps → shared memory;  barrier
///     recompute_states                     entry states of each group → shared memory
///     for each tile i, from the last:
///       stage_tile(i)                      dy silu(z) and C → shared memory;  barrier
///       load_inputs(i - 1)                 device memory → registers
///       for each group, from the last:
///         load_entry_states
///         replay_steps                     forward: decay, decay h, Σ_n C h; dC → memory
///         reverse_steps                    backward: g, Σ_n g B, Σ_n rate g decay h; dB → memory
///       barrier;  write_gradients(i)       adds the warps' parts in order, writes ddelta, du, dz
///   write_sums                             da_log, dd, ddelta_bias and the gradient of the initial states
///
/// dB and dC are sums over channels: first over a thread's, then over the lanes of a warp by shuffles, then over blocks
/// in a separate launch, which also adds the gradients of the parameters over chunks and sequences. There are no atomic
/// additions, so the order is fixed. The kernel is bound by instructions.
namespace moe_mamba::inline v0_2::cuda::detail {

template <class C, class S, int States>
class ScanBackward : ScanBackwardStates<C, S, States> {
  using Base = ScanBackwardStates<C, S, States>;
  using Base::scan_, Base::storage_, Base::tile_, Base::last_tile_, Base::partial_, Base::row, Base::part;
  using typename Base::Registers, typename Base::Scan, typename Base::T, typename Base::Tile, typename Base::Tuning;
  using Loaded = Packed<C, Tuning::vector>;

 public:
  using typename Base::Storage;

  __device__ __forceinline__ ScanBackward(const Scan& scan, const ScanCarry<T>& carry,
                                          const ScanPartialSums<T>& partial, const ScanPassSums<C, 3>& sums,
                                          int first_state, bool vectorised, Storage& storage)
      : Base(scan, carry, partial, first_state, storage),
        vectorised_(vectorised),
        delta_(scan.delta, last_tile_ + Tile::row(), tile_.vector_channel()),
        u_(scan.u, last_tile_ + Tile::row(), tile_.vector_channel()),
        z_(scan.z, last_tile_ + Tile::row(), tile_.vector_channel()),
        dy_(scan.dy, last_tile_ + Tile::row(), tile_.vector_channel()),
        c_(scan.c, last_tile_ + Tile::coefficient_row(), tile_.coefficient_state()),
        ddelta_(scan.ddelta, sums.of[0], last_tile_ + Tile::row(), tile_.vector_channel()),
        du_(scan.du, sums.of[1], last_tile_ + Tile::row(), tile_.vector_channel()),
        dz_(scan.dz, sums.of[2], last_tile_ + Tile::row(), tile_.vector_channel()) {}

  __device__ __forceinline__ void run() {
    this->load_states();
    load_parameters();
    int steps = static_cast<int>((tile_.end - 1) % Tuning::steps) + 1;  // of the current tile
    load_inputs(steps);
    for (Index first = tile_.end - 1 - (tile_.end - 1) % Tuning::segment; first >= tile_.begin;
         first -= Tuning::segment) {
      const int tiles = ceiling_divide(static_cast<int>(min(Index{Tuning::segment}, tile_.end - first)), Tuning::steps);
      Registers h;
      this->load_checkpoint(first, h);
      if (vectorised_) {
        stage_segment<true>(first, tiles * Tuning::steps);
      } else {
        stage_segment<false>(first, tiles * Tuning::steps);
      }
      __syncthreads();
      this->recompute_states(h, tiles * Tuning::groups);
      for (int tile = tiles - 1; tile >= 0; --tile) {
        stage_tile();
        __syncthreads();
        if (tile > 0 || first > tile_.begin) load_inputs(Tuning::steps);
        for (int group = Tuning::groups - 1; group >= 0; --group) {
          // The states before the segment's last group are still in h.
          if (tile + 1 < tiles || group + 1 < Tuning::groups) this->load_entry_states(tile * Tuning::groups + group, h);
          this->compute_group(tile, group * Tuning::held, h, steps);
        }
        this->end_tile();
        __syncthreads();
        write_gradients(tile, steps);
        steps = Tuning::steps;
      }
    }
    write_sums();
  }

 private:
  static __device__ __forceinline__ void stage_coefficient(
      typename Storage::StateVector (&row)[Tuning::copies][Tuning::warps], C loaded) {
    const T value = static_cast<T>(loaded);
#pragma unroll
    for (int copy = 0; copy < Tuning::copies; ++copy)
      row[copy][Tile::coefficient_warp()].values[Tile::coefficient_index() ^ (copy * (Tuning::padded / 2))] = value;
  }

  __device__ __forceinline__ void load_parameters() {
#pragma unroll
    for (int j = 0; j < Tuning::vector; ++j) {
      const Index channel = tile_.vector_channel() + j;
      bias_.values[j] = j < tile_.present ? static_cast<T>(scan_.delta_bias[channel]) : T(0);
      // The gradients of the skip connection are added once, in the first pass.
      d_.values[j] = j < tile_.present && tile_.first_pass() ? static_cast<T>(scan_.d[channel]) : T(0);
    }
  }

  /// Stages Δ, Δ u and B of a segment of `steps` steps, in whole tiles; steps past the end of the sequence have no
  /// effect.
  template <bool vectorised>
  __device__ __forceinline__ void stage_segment(Index first, int steps) {
    RowCursor<const C, Tuning::row_step> delta(scan_.delta, row(first + Tile::row()), tile_.vector_channel());
    RowCursor<const C, Tuning::row_step> u(scan_.u, row(first + Tile::row()), tile_.vector_channel());
    constexpr int row_step = Tuning::coefficient_row_step, coefficients = Tuning::segment / row_step;
    RowCursor<const C, row_step> b(scan_.b, row(first + Tile::coefficient_row()), tile_.coefficient_state());
    const int here = static_cast<int>(min(Index{Tuning::segment}, tile_.end - first));
    C b_values[coefficients];
#pragma unroll
    for (int i = 0; i < coefficients; ++i) {
      b_values[i] = tile_.has_coefficient() && Tile::coefficient_row() + i * row_step < here ? *b.at : C{};
      b.move(1);
    }
    constexpr int batch = 4;
    for (int start = Tile::row(); start < steps; start += batch * Tuning::row_step) {
      Loaded deltas[batch], us[batch];  // all loaded before the first use
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int present = start + i * Tuning::row_step < here ? tile_.present : 0;
        deltas[i] = broadcast<C, Tuning::vector>(no_step<T>), us[i] = {};
        delta.template load<vectorised>(deltas[i], present);
        u.template load<vectorised>(us[i], present);
        delta.move(1), u.move(1);
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const typename Storage::ElementVector delta_values = widen(deltas[i]), u_values = widen(us[i]);
        stage_inputs<C>(delta_values, bias_, storage_.inputs[start + i * Tuning::row_step][Tile::column()],
                        [&](int j, T step) { return step * u_values.values[j]; });
      }
    }
#pragma unroll
    for (int i = 0; i < coefficients; ++i)
      stage_coefficient(storage_.b[Tile::coefficient_row() + i * row_step], b_values[i]);
  }

  /// Prefetches the `steps` rows of the tile before the current one.
  __device__ __forceinline__ void load_inputs(int steps) {
    next_.c = tile_.has_coefficient() && Tile::coefficient_row() < steps ? *c_.at : C{};
    c_.move(-1);
    tile_.for_rows(vectorised_, steps, [&](auto vectorised, int i, int present) {
      constexpr bool v = decltype(vectorised)::value;
      delta_.template load<v>(next_.delta[i], present);
      u_.template load<v>(next_.u[i], present);
      z_.template load<v>(next_.z[i], present);
      dy_.template load<v>(next_.dy[i], present);
      delta_.move(1), u_.move(1), z_.move(1), dy_.move(1);
    });
    constexpr int back = -2 * Tuning::rows;  // from the end of a tile to the beginning of the one before it
    delta_.move(back), u_.move(back), z_.move(back), dy_.move(back);
  }

  /// Stages dy silu(z) and C of the prefetched tile, and keeps what its gradients need in registers.
  __device__ __forceinline__ void stage_tile() {
    using ElementVector = typename Storage::ElementVector;
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const ElementVector z = widen(next_.z[i]), dy = widen(next_.dy[i]), delta = widen(next_.delta[i]);
      ElementVector dp;
#pragma unroll
      for (int j = 0; j < Tuning::vector; ++j) {
        const auto gate = silu_and_slope_of<C>(z.values[j]);
        dp.values[j] = dy.values[j] * gate.value;
        dgate_[i].values[j] = dy.values[j] * gate.slope;
        slope_[i].values[j] = sigmoid_of<C>(delta.values[j] + bias_.values[j]);
      }
      tile_u_[i] = next_.u[i];
      as_vector<ElementVector>(storage_.dp[Tile::row() + i * Tuning::row_step][Tile::column()]) = dp;
    }
    if (Tile::coefficient_row() < Tuning::steps) stage_coefficient(storage_.c[Tile::coefficient_row()], next_.c);
  }

  /// Adds the warps' sums of a tile and writes the gradients of its elements.
  __device__ __forceinline__ void write_gradients(int tile, int steps) {
    using ElementVector = typename Storage::ElementVector;
    constexpr T ln2 = std::numbers::ln2_v<T>;  // rates are exponents of 2
    ElementVector ddelta[Tuning::rows], du[Tuning::rows], dz[Tuning::rows];
#pragma unroll
    for (int i = 0; i < Tuning::rows; ++i) {
      const int t = Tile::row() + i * Tuning::row_step;
      const auto inputs =
          as_vector<Vector<T, 2 * Tuning::vector>>(storage_.inputs[tile * Tuning::steps + t][Tile::column()]);
      const ElementVector dp = as_vector<ElementVector>(storage_.dp[t][Tile::column()]), u = widen(tile_u_[i]);
      ElementVector sums[3];
#pragma unroll
      for (int warp = 0; warp < Tuning::warps; ++warp) {
        ElementVector own[3];
#pragma unroll
        for (int kind = 0; kind < 3; ++kind) {
          own[kind] = as_vector<ElementVector>(storage_.sums[kind][warp][t][Tile::column()]);
        }
#pragma unroll
        for (int j = 0; j < Tuning::vector; ++j) {
#pragma unroll
          for (int kind = 0; kind < 3; ++kind) {
            sums[kind].values[j] = warp == 0 ? own[kind].values[j] : sums[kind].values[j] + own[kind].values[j];
          }
        }
      }
#pragma unroll
      for (int j = 0; j < Tuning::vector; ++j) {
        const T delta = inputs.values[2 * j], output = sums[0].values[j], dinput = sums[1].values[j];
        ddelta[i].values[j] = fma(ln2, sums[2].values[j], u.values[j] * dinput) * slope_[i].values[j];
        du[i].values[j] = fma(delta, dinput, d_.values[j] * dp.values[j]);
        dz[i].values[j] = dgate_[i].values[j] * fma(d_.values[j], u.values[j], output);
        dd_.values[j] = fma(dp.values[j], u.values[j], dd_.values[j]);
        dbias_.values[j] += t < steps ? ddelta[i].values[j] : T(0);
      }
    }
    tile_.for_rows(vectorised_, steps, [&](auto vectorised, int i, int present) {
      constexpr bool v = decltype(vectorised)::value;
      ddelta_.template add<v>(ddelta[i], present, tile_.first_pass(), tile_.last_pass());
      du_.template add<v>(du[i], present, tile_.first_pass(), tile_.last_pass());
      dz_.template add<v>(dz[i], present, tile_.first_pass(), tile_.last_pass());
      ddelta_.move(1), du_.move(1), dz_.move(1);
    });
    constexpr int back = -2 * Tuning::rows;
    ddelta_.move(back), du_.move(back), dz_.move(back);
  }

  __device__ __forceinline__ void write_sums() {
    this->write_states();
    // The sums of a channel's threads are added in the order of their rows.
    auto &dd_sums = storage_.sums[0][0], &dbias_sums = storage_.sums[1][0];
    __syncthreads();
    as_vector<typename Storage::ElementVector>(dd_sums[Tile::row()][Tile::column()]) = dd_;
    as_vector<typename Storage::ElementVector>(dbias_sums[Tile::row()][Tile::column()]) = dbias_;
    __syncthreads();
    for (int column = static_cast<int>(threadIdx.x); column < Tuning::width; column += Tuning::threads) {
      if (tile_.channel0 + column >= tile_.channels) break;
      T dd = T(0), dbias = T(0);
      for (int row = 0; row < Tuning::row_step; ++row) dd += dd_sums[row][column], dbias += dbias_sums[row][column];
      const Index at = part() * tile_.channels + tile_.channel0 + column;
      if (tile_.first_pass()) partial_.dd[at] = dd;
      partial_.dbias[at] = tile_.first_pass() ? dbias : partial_.dbias[at] + dbias;
    }
  }

  bool vectorised_;
  typename Storage::ElementVector bias_, d_, dd_ = {}, dbias_ = {};
  RowCursor<const C, Tuning::row_step> delta_, u_, z_, dy_;
  RowCursor<const C, Tuning::steps> c_;
  OutputCursor<C, ScanPassSums<C, 3>::separate(Tuning::passes), Tuning::row_step> ddelta_, du_, dz_;
  struct {
    Loaded delta[Tuning::rows], u[Tuning::rows], z[Tuning::rows], dy[Tuning::rows];
    C c;
  } next_ = {};  // the prefetched tile; steps past the last are zero and have no gradient
  // dy silu'(z), softplus' and u of the current tile
  typename Storage::ElementVector dgate_[Tuning::rows], slope_[Tuning::rows];
  Loaded tile_u_[Tuning::rows];
};

template <class C, class S, int States>
__global__ void __launch_bounds__(ScanBackwardTuning<compute_t<C>, States>::threads,
                                  ScanBackwardTuning<compute_t<C>, States>::blocks)
    scan_backward_kernel(const __grid_constant__ SelectiveScanBackward<C, S, States> scan,
                         const __grid_constant__ ScanCarry<compute_t<C>> carry,
                         const __grid_constant__ ScanPartialSums<compute_t<C>> partial,
                         const __grid_constant__ ScanPassSums<C, 3> sums, int first_state, bool vectorised) {
  using Backward = ScanBackward<C, S, States>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto& storage = *reinterpret_cast<typename Backward::Storage*>(shared);
  Backward(scan, carry, partial, sums, first_state, vectorised, storage).run();
}

/// Sums db and dc of all steps over groups of channels. One thread per element of both.
template <class C>
__global__ void __launch_bounds__(256)
    scan_coefficient_gradients_kernel(ScanPartialSums<compute_t<C>> partial, Index groups, Index rows, Index states,
                                      MatrixView<C> db, MatrixView<C> dc) {
  const Index index = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  if (index >= rows * states) return;
  using T = compute_t<C>;
  T db_sum = T(0), dc_sum = T(0);
  for (Index group = 0; group < groups; ++group) {
    db_sum += partial.db[group * rows * states + index];
    dc_sum += partial.dc[group * rows * states + index];
  }
  const Index row = index / states, n = index - row * states;
  db.data[row * db.stride + n] = stored_as<C>(db_sum);
  dc.data[row * dc.stride + n] = stored_as<C>(dc_sum);
}

/// to[i] += Σ_part parts[part][i] for the gradients of a_log, d and the bias; packed sequences are added in order.
template <class C>
__global__ void __launch_bounds__(256)
    scan_parameter_gradients_kernel(ScanPartialSums<C> partial, ScanChunks chunks, Index channels, Index states,
                                    C* da_log, C* dd, C* dbias) {
  Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x;
  Index size = channels * states;
  const C* from = partial.da_log;
  C* to = da_log;
  if (i >= size) {
    i -= size;
    size = channels;
    const bool bias = i >= channels;
    from = bias ? partial.dbias : partial.dd;
    to = bias ? dbias : dd;
    if (bias) i -= channels;
    if (i >= channels) return;
  }
  C total = to[i];
  chunks.sequences.each_run_of_blocks(chunks.parts, [&](Index begin, Index end) {
    C sum = C(0);
    for (Index part = begin; part < end; ++part) sum += from[part * size + i];
    total += sum;
  });
  to[i] = total;
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
