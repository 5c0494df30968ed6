#pragma once

#include <type_traits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Grouped products by ordinary arithmetic, of factors of any sizes.
namespace moe_mamba::inline v0_2::cuda::detail {

/// One factor of a product: element (i, k) of it, k running over what is summed, lies at data[i · stride + k], or at
/// data[k · stride + i] with Along::outer.
template <class T, Along along_>
struct Factor {
  static constexpr Along along = along_;
  const T* data;
  Index stride;
  Index count;  // values of i
};

/// A tile of C by 256 threads with a square of sums each. An inner step is loaded into registers while the one before
/// is multiplied.
template <class C>
struct FmaTile {
  static constexpr int threads = 256, across = 16;
  static constexpr int side = sizeof(C) == 4 ? 128 : 64;  // rows and columns of a tile
  static constexpr int own = side / across;               // rows and columns of a thread
  static constexpr int inner = 16;
  static constexpr int pitch = side + 16 / int(sizeof(C));  // of a line of shared memory, aligned to 16 bytes
  static constexpr int loads = side * inner / threads;

  struct Shared {
    alignas(16) C a[2][inner][pitch];
    alignas(16) C b[2][inner][pitch];
  };

  /// Row or column `i` of a thread's own within the tile: quads, for wide loads, as far apart as there are threads.
  __device__ static int place(int thread, int i) { return i / 4 * (4 * across) + thread * 4 + i % 4; }

  /// What a thread carries of a factor from device to shared memory: vectors of `size` elements a fixed step apart,
  /// contiguous from thread to thread. With a size above 1, lines are aligned to vectors and whole ones.
  template <int size, class F>
  struct Carrier;
  template <int size, class T, Along along>
  struct Carrier<size, Factor<T, along>> {
    static constexpr int vectors = (along == Along::inner ? inner : side) / size;  // of a line of contiguous elements
    static constexpr int lines = threads / vectors;                                // that a load of all threads covers
    static constexpr int count = loads / size;
    const T* at;
    Index step, stride;
    int i, k, present;
    Vector<C, size> values[count];

    __device__ Carrier(const Factor<T, along>& factor, Index first) {
      const int across_line = int(threadIdx.x) % vectors * size, down = int(threadIdx.x) / vectors;
      i = along == Along::inner ? down : across_line;
      k = along == Along::inner ? across_line : down;
      stride = factor.stride;
      step = lines * stride;
      at = factor.data + (along == Along::inner ? (first + i) * stride + k : k * stride + first + i);
      const int left = int(min(factor.count - first, Index{side})) - i;
      present = along == Along::inner ? ceiling_divide(left, lines) : left > 0 ? count : 0;
    }

    /// The next inner step, of which `k_left` elements are there.
    __device__ void load(Index k_left) {
      const int left = int(min(k_left, Index{inner})) - k;
      const int here = min(present, along == Along::inner ? (left > 0 ? count : 0) : ceiling_divide(left, lines));
#pragma unroll
      for (int j = 0; j < count; ++j) {
        Vector<T, size> loaded{};
        if (j < here) loaded = *reinterpret_cast<const Vector<T, size>*>(at + j * step);
        values[j] = convert<C>(loaded);
      }
      at += along == Along::inner ? inner : inner * stride;
    }
    __device__ void store(C (&to)[inner][pitch]) const {
#pragma unroll
      for (int j = 0; j < count; ++j) {
        if constexpr (along == Along::inner) {
#pragma unroll
          for (int v = 0; v < size; ++v) to[k + v][i + j * lines] = values[j].values[v];
        } else {
          as_vector<Vector<C, size>>(to[k + j * lines][i]) = values[j];
        }
      }
    }
  };

  /// out = or += a bᵀ, for the rows of a and b from `a_first` and `b_first` on that lie in one tile. The whole block
  /// calls; shared memory may be used again after a __syncthreads(). Factors are loaded in vectors of `size`.
  template <int size, class A, class B, class Rows>
  __device__ static void multiply(Shared& shared, const A& a, Index a_first, const B& b, Index b_first, Index k_count,
                                  const Rows& out, Into into) {
    using Out = std::remove_reference_t<decltype(*out.data)>;
    const int ty = int(threadIdx.x) / across, tx = int(threadIdx.x) % across;
    C sums[own][own] = {};
    Carrier<size, A> a_next(a, a_first);
    Carrier<size, B> b_next(b, b_first);
    a_next.load(k_count);
    b_next.load(k_count);
    int stage = 0;
    for (Index k_left = k_count; k_left > 0; k_left -= inner, stage ^= 1) {
      a_next.store(shared.a[stage]);
      b_next.store(shared.b[stage]);
      __syncthreads();
      if (k_left > inner) {
        a_next.load(k_left - inner);
        b_next.load(k_left - inner);
      }
#pragma unroll
      for (int k = 0; k < inner; ++k) {
        C a_own[own], b_own[own];
#pragma unroll
        for (int i = 0; i < own; ++i) a_own[i] = shared.a[stage][k][place(ty, i)];
#pragma unroll
        for (int i = 0; i < own; ++i) b_own[i] = shared.b[stage][k][place(tx, i)];
#pragma unroll
        for (int i = 0; i < own; ++i) {
#pragma unroll
          for (int j = 0; j < own; ++j) sums[i][j] += a_own[i] * b_own[j];
        }
      }
    }
    const bool fours = can_vectorise<4>(out.data, out.stride);
    int left[own / 4];  // columns from the first of each quad on
#pragma unroll
    for (int j = 0; j < own / 4; ++j) left[j] = int(min(b.count - b_first - place(tx, j * 4), Index{side}));
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const Index row = a_first + place(ty, i);
      if (row >= a.count) continue;
      Out* const line = out.row(row) + b_first;
      // All that a row is added to is read before any of it is written.
      Vector<Out, 4> quads[own / 4] = {};
#pragma unroll
      for (int j = 0; j < own / 4; ++j) {
        if (into == Into::add) load_quad(line + place(tx, j * 4), left[j], fours, quads[j]);
      }
#pragma unroll
      for (int j = 0; j < own / 4; ++j) {
        Vector<C, 4> results = convert<C>(quads[j]);
#pragma unroll
        for (int v = 0; v < 4; ++v) results.values[v] += sums[i][j * 4 + v];
        store_quad(convert<Out>(results), left[j], fours, line + place(tx, j * 4));
      }
    }
  }

 private:
  /// Of four neighbours, the first `left` that there are.
  template <class Out>
  __device__ static void load_quad(const Out* from, int left, bool aligned, Vector<Out, 4>& to) {
    if (aligned && left >= 4) {
      to = *reinterpret_cast<const Vector<Out, 4>*>(from);
      return;
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      if (v < left) to.values[v] = from[v];
    }
  }
  template <class Out>
  __device__ static void store_quad(const Vector<Out, 4>& from, int left, bool aligned, Out* to) {
    if (aligned && left >= 4) {
      *reinterpret_cast<Vector<Out, 4>*>(to) = from;
      return;
    }
#pragma unroll
    for (int v = 0; v < 4; ++v) {
      if (v < left) to[v] = from.values[v];
    }
  }
};

/// y = or += x B for rows in groups; B of group g begins at weight + g · step, and what is contiguous in it is the
/// inner index (as in Wᵀ) or, with Along::outer, the columns (as in W). Both factors are loaded in vectors of `size`.
template <int size, Along along, class C, class S>
__global__ void __launch_bounds__(FmaTile<compute_t<C>>::threads, 2)
    grouped_kernel(Groups groups, MatrixView<const C> x, const S* weight, Index step, Index stride, ResultRows<C> y,
                   Into into) {
  using Tile = FmaTile<compute_t<C>>;
  __shared__ typename Tile::Shared shared;
  TileWalk walk(groups, 0, x.rows, Tile::side, Tile::side, y.columns);
  for (Index tile = blockIdx.x; walk.find(tile); tile += gridDim.x) {
    const Factor<C, Along::inner> a{x.row(walk.first_row), x.stride, walk.rows};
    const Factor<S, along> b{weight + walk.group * step, stride, y.columns};
    Tile::template multiply<size>(shared, a, 0, b, walk.column, x.columns, y.row_block(walk.first_row, walk.rows),
                                  into);
    __syncthreads();
  }
}

/// dweight of each group = or += dyᵀ x over the rows of the group.
template <int size, class C>
__global__ void __launch_bounds__(FmaTile<C>::threads, 2)
    grouped_weight_kernel(Groups groups, MatrixView<const C> dy, MatrixView<const C> x, MatrixStack<C> dweight,
                          Into into) {
  using Tile = FmaTile<C>;
  __shared__ typename Tile::Shared shared;
  WeightTileWalk walk(groups, 0, x.rows, 1, into == Into::assign, Tile::side, Tile::side, dweight.rows,
                      dweight.columns);
  for (Index tile = blockIdx.x; walk.find(tile); tile += gridDim.x) {
    const Factor<C, Along::outer> a{dy.row(walk.first_row), dy.stride, dweight.rows};
    const Factor<C, Along::outer> b{x.row(walk.first_row), x.stride, dweight.columns};
    const MatrixView<C> out{dweight.data + walk.group * dweight.rows * dweight.columns, dweight.rows, dweight.columns,
                            dweight.columns};
    Tile::template multiply<size>(shared, a, walk.row, b, walk.column, walk.rows, out, into);
    __syncthreads();
  }
}

}  // namespace moe_mamba::inline v0_2::cuda::detail
