#pragma once

#include <type_traits>

#include "moe_mamba/cuda/block/tensor_tile.cuh"
#include "moe_mamba/cuda/block/warp_product.cuh"
#include "moe_mamba/cuda/block/warpgroup_product.cuh"

/// A tile of a product of bfloat16 factors from device memory to its sums.
namespace moe_mamba::cuda::detail {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
template <class Tile, bool a_inner_contiguous, bool b_inner_contiguous>
using TensorProduct = WarpgroupProduct<Tile, a_inner_contiguous, b_inner_contiguous>;
#else
template <class Tile, bool a_inner_contiguous, bool b_inner_contiguous>
using TensorProduct = WarpProduct<Tile, a_inner_contiguous, b_inner_contiguous>;
#endif

/// Steps of the inner index are copied into shared memory while those before them are multiplied. What is contiguous in
/// a factor is the inner index or, where not `inner_contiguous`, the rows of a or the columns of b. Factors are aligned to
/// 16 bytes line by line; of what is contiguous in them, whole runs of 16 bytes are read. The whole block calls.
template <class Tile, bool a_inner_contiguous, bool b_inner_contiguous>
class TensorPipeline {
 public:
  using Product = TensorProduct<Tile, a_inner_contiguous, b_inner_contiguous>;

  /// `shared`: Tile::shared_bytes of shared memory.
  __device__ explicit TensorPipeline(const void* shared) : a_copies_(nullptr, 0), b_copies_(nullptr, 0) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    a_shared_ = (address + Tile::alignment - 1) / Tile::alignment * Tile::alignment;
    b_shared_ = a_shared_ + Tile::stages * Tile::a_bytes;
  }

  /// Starts to copy a tile's first steps: `rows` rows of a and `columns` columns of b, or as many as the tile has.
  __device__ void begin(const bfloat16* a, Index a_stride, Index rows, const bfloat16* b, Index b_stride, Index columns,
                        Index k_count) {
    a_ = a, b_ = b, rows_ = rows, columns_ = columns, k_count_ = k_count;
    a_step_ = a_inner_contiguous ? Tile::inner : Tile::inner * a_stride;
    b_step_ = b_inner_contiguous ? Tile::inner : Tile::inner * b_stride;
    a_copies_ = ACopies(a, a_stride);
    b_copies_ = BCopies(b, b_stride);
    for (int at = 0; at < Product::ahead; ++at) copy_step(at);
  }

  /// Adds the tile's product to the sums of those that are `busy`. When it returns, begin() may be called again.
  __device__ void multiply(Product& product, bool busy) {
    const Index steps = (k_count_ + Tile::inner - 1) / Tile::inner;
    for (Index at = 0; at < steps; ++at) {
      wait_copies<Product::ahead - 1>();
      Product::publish();
      __syncthreads();  // step `at` is there for all, and what comes next overwrites has been read by all
      copy_step(at + Product::ahead);
      const auto stage = unsigned(at % Tile::stages);
      if (busy) product.multiply(a_shared_ + stage * Tile::a_bytes, b_shared_ + stage * Tile::b_bytes);
    }
    Product::finish();
    wait_copies<0>();
    __syncthreads();
  }

 private:
  using ACopies =
      std::conditional_t<a_inner_contiguous, LineCopies<Tile::rows, Tile::inner>, LineCopies<Tile::inner, Tile::rows>>;
  using BCopies = std::conditional_t<b_inner_contiguous, LineCopies<Tile::columns, Tile::inner>,
                                     LineCopies<Tile::inner, Tile::columns>>;

  __device__ void copy_step(Index at) {
    const Index k_left = k_count_ - at * Tile::inner;
    if (k_left > 0) {
      const auto stage = unsigned(at % Tile::stages);
      a_copies_.copy(a_shared_ + stage * Tile::a_bytes, a_inner_contiguous ? rows_ : k_left,
                     a_inner_contiguous ? k_left : rows_, a_);
      b_copies_.copy(b_shared_ + stage * Tile::b_bytes, b_inner_contiguous ? columns_ : k_left,
                     b_inner_contiguous ? k_left : columns_, b_);
      a_copies_.at += a_step_;
      b_copies_.at += b_step_;
    }
    end_copies();
  }

  unsigned a_shared_, b_shared_;
  const bfloat16 *a_ = nullptr, *b_ = nullptr;
  Index rows_ = 0, columns_ = 0, k_count_ = 0, a_step_ = 0, b_step_ = 0;
  ACopies a_copies_;
  BCopies b_copies_;
};

}  // namespace moe_mamba::cuda::detail
