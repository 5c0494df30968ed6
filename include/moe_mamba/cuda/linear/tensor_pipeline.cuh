#pragma once

#include <type_traits>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/linear/async_copy.cuh"
#include "moe_mamba/cuda/linear/epilogue.cuh"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tensor_factors.cuh"
#include "moe_mamba/cuda/linear/tensor_tile.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/cuda/linear/warp_product.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Tiles of products of bfloat16 factors from device memory to their sums, one after the other, by threads that copy
/// and multiply in turn: compute capability 8.0 and up.
namespace moe_mamba::inline v0_2::cuda::detail {

/// Steps of the inner index are copied into shared memory while those before them are multiplied, and the first ones of
/// the next tile while one is written. Of what is contiguous in factors, whole runs of 16 bytes are read. The whole
/// block calls.
template <class Tile, Along a_along, Along b_along, class C>
class TensorPipeline {
 public:
  using Product = WarpProduct<Tile, a_along, b_along>;
  using Source = TensorSource<C>;
  static constexpr int threads = Tile::threads;

  /// `shared`: Tile::shared_bytes<C> of shared memory.
  __device__ TensorPipeline(const void* shared, const TensorFactors& factors, const TensorMaps&)
      : factors_(factors), a_copies_(nullptr, 0), b_copies_(nullptr, 0) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    a_shared_ = ceiling_divide(address, Tile::alignment) * Tile::alignment;
    b_shared_ = a_shared_ + Tile::stages * Tile::a_bytes;
  }

  /// Multiplies all tiles: next(source) gives the next one, or returns false. Sums are written to tiles of
  /// matrices of this stride, or added to them.
  template <class Next>
  __device__ void run(const Next& next, Index out_stride, Into into) {
    Source source;
    const auto begin = [&] {
      if (!next(source)) return false;
      copy_first_steps(source);
      return true;
    };
    for (bool more = begin(); more;) {
      C* const out = source.out;
      const Index* const places = source.places;
      const int rows = rows_, columns = columns_;
      const bool busy = Product::busy(rows, columns);
      Product product;
      multiply(product, busy);
      more = begin();  // shared memory is free
      if (busy) write_sums(product, ResultRows<C>(out, rows, columns, out_stride, places), into);
    }
  }

 private:
  using ACopies = std::conditional_t<a_along == Along::inner, LineCopies<Tile::rows, Tile::inner>,
                                     LineCopies<Tile::inner, Tile::rows>>;
  using BCopies = std::conditional_t<b_along == Along::inner, LineCopies<Tile::columns, Tile::inner>,
                                     LineCopies<Tile::inner, Tile::columns>>;
  static constexpr int ahead = Tile::stages - 1;  // steps that are copied before they are needed

  __device__ void copy_first_steps(const Source& source) {
    rows_ = int(min(source.rows, Index{Tile::rows}));
    columns_ = int(min(source.columns, Index{Tile::columns}));
    k_count_ = source.k_count;
    const Index a_stride = factors_.a.stride, b_stride = factors_.b.stride;
    a_copies_ = ACopies(factors_.a.data + (a_along == Along::inner ? source.row * a_stride + source.k
                                                                   : source.k * a_stride + source.row),
                        a_stride);
    b_copies_ = BCopies(
        factors_.b.data + source.group * factors_.b_step +
            (b_along == Along::inner ? source.column * b_stride + source.k : source.k * b_stride + source.column),
        b_stride);
    for (int at = 0; at < ahead; ++at) copy_step(at);
  }

  /// Adds the tile's product to the sums of those that are `busy`. When it returns, the next tile may be begun.
  __device__ void multiply(Product& product, bool busy) {
    const Index steps = ceiling_divide(k_count_, Tile::inner);
    for (Index at = 0; at < steps; ++at) {
      wait_copies<ahead - 1>();
      __syncthreads();  // step `at` is there for all, and what comes next overwrites has been read by all
      copy_step(at + ahead);
      const auto stage = unsigned(at % Tile::stages);
      if (busy) product.multiply(a_shared_ + stage * Tile::a_bytes, b_shared_ + stage * Tile::b_bytes);
    }
    wait_copies<0>();
    __syncthreads();
  }

  __device__ void copy_step(Index at) {
    const Index k_left = k_count_ - at * Tile::inner;
    if (k_left > 0) {
      const auto stage = unsigned(at % Tile::stages);
      a_copies_.copy(a_shared_ + stage * Tile::a_bytes, a_along == Along::inner ? rows_ : k_left,
                     a_along == Along::inner ? k_left : rows_, factors_.a.data);
      b_copies_.copy(b_shared_ + stage * Tile::b_bytes, b_along == Along::inner ? columns_ : k_left,
                     b_along == Along::inner ? k_left : columns_, factors_.b.data);
      a_copies_.at += a_along == Along::inner ? Index{Tile::inner} : Tile::inner * factors_.a.stride;
      b_copies_.at += b_along == Along::inner ? Index{Tile::inner} : Tile::inner * factors_.b.stride;
    }
    end_copies();
  }

  const TensorFactors& factors_;
  unsigned a_shared_, b_shared_;
  // Of the tile that was begun last.
  int rows_ = 0, columns_ = 0;
  Index k_count_ = 0;
  ACopies a_copies_;
  BCopies b_copies_;
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
