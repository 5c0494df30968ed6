#pragma once

#include <cstdint>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/linear/bulk_copy.cuh"
#include "moe_mamba/cuda/linear/epilogue.cuh"
#include "moe_mamba/cuda/linear/result_rows.cuh"
#include "moe_mamba/cuda/linear/tensor_factors.cuh"
#include "moe_mamba/cuda/linear/tile_walk.cuh"
#include "moe_mamba/cuda/linear/warpgroup_product.cuh"
#include "moe_mamba/ops/linear.hpp"

/// Tiles of products of bfloat16 factors from device memory to their sums, one after the other, in code compiled for
/// sm_90a: a warp of the block looks for tiles and has their steps copied as fast as shared memory gets free, two
/// warpgroups multiply and write. So a tile's first steps are there when the one before it is written.
namespace moe_mamba::inline v0_2::cuda::detail {

/// The whole block calls: Tile::threads threads that multiply, and a warpgroup after them of which one thread copies.
/// It is a whole one because warpgroups exchange registers.
template <class Tile, Along a_along, Along b_along, class C>
class WarpgroupPipeline {
 public:
  using Product = WarpgroupProduct<Tile, a_along, b_along>;
  using Source = TensorSource<C>;
  static constexpr int threads = Tile::threads + Tile::copying_threads;

  /// `shared`: Tile::shared_bytes<C> of shared memory.
  __device__ WarpgroupPipeline(void* shared, const TensorFactors&, const TensorMaps& maps) : maps_(maps) {
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    const unsigned skipped = ceiling_divide(address, Tile::alignment) * Tile::alignment - address;
    factors_ = static_cast<char*>(shared) + skipped;
    a_ = address + skipped;
    b_ = a_ + Tile::stages * Tile::a_bytes;
    barriers_ = b_ + Tile::stages * Tile::b_bytes;
    constexpr unsigned factor_bytes = Tile::stages * (Tile::a_bytes + Tile::b_bytes);
    jobs_ = reinterpret_cast<Job*>(factors_ + factor_bytes + barrier_bytes);
    staged_ = factors_ + factor_bytes + Tile::control_bytes;
  }

  /// Multiplies all tiles: in one thread next(source) gives the next one, or returns false. Sums are written to
  /// tiles of matrices of this stride, or added to them.
  template <class Next>
  __device__ void run(const Next& next, Index out_stride, Into into) {
    if (threadIdx.x == 0) {
      for (unsigned stage = 0; stage < Tile::stages; ++stage) {
        filled(stage).begin(1);
        read(stage).begin(Tile::threads / warp_size);
      }
      publish_barriers();
    }
    __syncthreads();
    constexpr bool hands_over = Tile::copying_threads == 4 * warp_size;
    if (threadIdx.x < Tile::threads) {
      if constexpr (hands_over) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
      multiply(out_stride, into);
    } else {
      if constexpr (hands_over) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
      if (threadIdx.x == Tile::threads) copy(next);
    }
  }

 private:
  /// What those that multiply have to know of a tile when its first step is there. No steps: there are no more tiles.
  struct Job {
    C* out;
    const Index* places;
    int steps;
    std::int16_t rows, columns, last;  // last: of the inner index, in the last step
  };
  // Tiles that may be known at a time: one for each stage that has been filled, and one more.
  static constexpr unsigned jobs = 2 * Tile::stages, barrier_bytes = 2 * 8 * Tile::stages;
  static_assert(jobs * sizeof(Job) + barrier_bytes <= Tile::control_bytes);

  /// A stage of shared memory, and the parity of its use.
  struct Stage {
    unsigned number = 0, parity = 0;
    __device__ void advance() {
      if (++number == Tile::stages) number = 0, parity ^= 1;
    }
  };
  __device__ BulkBarrier filled(unsigned stage) const { return {barriers_ + stage * 16}; }
  __device__ BulkBarrier read(unsigned stage) const { return {barriers_ + stage * 16 + 8}; }

  template <class Next>
  __device__ void copy(const Next& next) {
    Stage stage;
    for (unsigned number = 0;; ++number) {
      Source source;
      const bool more = next(source);
      const Index steps = more ? max(Index{1}, ceiling_divide(source.k_count, Tile::inner)) : 0;
      read(stage.number).wait(stage.parity ^ 1);
      Job& job = jobs_[number % jobs];
      job.steps = int(steps);
      if (!more) return filled(stage.number).arrive();
      job.out = source.out;
      job.places = source.places;
      job.rows = std::int16_t(min(source.rows, Index{Tile::rows}));
      job.columns = std::int16_t(min(source.columns, Index{Tile::columns}));
      job.last = std::int16_t(source.k_count - (steps - 1) * Tile::inner);
      for (Index at = 0; at < steps; ++at) {
        if (at > 0) read(stage.number).wait(stage.parity ^ 1);
        if (source.k_count == 0) {
          filled(stage.number).arrive();
        } else {
          copy_step(stage.number, source, job, int(source.k + at * Tile::inner));
        }
        stage.advance();
      }
    }
  }

  /// Copies as much as the tile has of a step, 64 rows or columns at a time.
  __device__ void copy_step(unsigned stage, const Source& source, const Job& job, int k) {
    constexpr unsigned box_bytes = Tile::inner * Tile::line_bytes;
    const int row_boxes = ceiling_divide(job.rows, 64), column_boxes = ceiling_divide(job.columns, 64);
    const int row = int(source.row), column = int(source.column), group = int(source.group);
    const unsigned a = a_ + stage * Tile::a_bytes, b = b_ + stage * Tile::b_bytes;
    const BulkBarrier barrier = filled(stage);
    barrier.arrive_and_expect(unsigned(row_boxes + column_boxes) * box_bytes);
    for (int i = 0; i < row_boxes; ++i) {
      const int at = row + i * 64;
      copy_box(a + i * box_bytes, maps_.a, a_along == Along::inner ? k : at, a_along == Along::inner ? at : k, barrier);
    }
    for (int i = 0; i < column_boxes; ++i) {
      const int at = column + i * 64;
      copy_box(b + i * box_bytes, maps_.b, b_along == Along::inner ? k : at, b_along == Along::inner ? at : k, group,
               barrier);
    }
  }

  __device__ void multiply(Index out_stride, Into into) {
    const bool first_lane = lane_index() == 0;
    Stage stage;
    for (unsigned number = 0;; ++number) {
      filled(stage.number).wait(stage.parity);
      const Job job = jobs_[number % jobs];
      if (job.steps == 0) break;
      const bool busy = Product::busy(job.rows, job.columns);
      const ResultRows<C> out(job.out, job.rows, job.columns, out_stride, job.places);
      const StagedLines lines(out);
      Product product;
      unsigned before = stage.number;
      for (int left = job.steps;;) {
        if (a_along == Along::outer && left == 1 && job.last < Tile::inner) clear_from(stage.number, job.last);
        if (busy) product.multiply(a_ + stage.number * Tile::a_bytes, b_ + stage.number * Tile::b_bytes);
        __syncwarp();  // where the warp had nothing to multiply, some lanes may still wait for the step
        if constexpr (Tile::pending == 0) {
          if (first_lane) read(stage.number).arrive();
        } else {
          if (first_lane && left < job.steps) read(before).arrive();
          before = stage.number;
        }
        stage.advance();
        if (--left == 0) break;
        filled(stage.number).wait(stage.parity);
      }
      Product::finish();
      if (Tile::pending > 0 && first_lane) read(before).arrive();
      if (busy) write(product, out, lines, into);
    }
    if constexpr (Tile::staged) await_bulk_stores();
  }

  /// A warp stages eight rows at a time: where those of each time go whose number a lane has. Places are read before a
  /// tile is multiplied, so that nothing waits for them.
  struct StagedLines {
    static constexpr int count = Tile::staged ? 2 * Product::row_parts : 0;
    C* at[Tile::staged ? count : 1];

    __device__ explicit StagedLines(const ResultRows<C>& out) {
#pragma unroll
      for (int part = 0; part < count; ++part) {
        const int row = Product::first_row() + part * 8 + lane_index();
        at[part] = lane_index() < 8 && row < out.rows ? out.row(row) : nullptr;
      }
      __syncwarp();
    }
  };

  /// Writes a tile's sums, or adds them: by way of shared memory where rows are whole vectors, which can be copied in
  /// bulk.
  __device__ void write(const Product& product, const ResultRows<C>& out, const StagedLines& lines, Into into) {
    if constexpr (Tile::staged) {
      constexpr int whole = full_vector<C>;
      if (into == Into::assign && out.columns % whole == 0 && can_vectorise<whole>(out.data, out.stride)) {
        return write_staged(product, lines, unsigned(out.columns * sizeof(C)));
      }
    }
    write_sums(product, out, into);
  }

  __device__ void write_staged(const Product& product, const StagedLines& lines, unsigned bytes) {
    constexpr unsigned row_bytes = Tile::template staged_row_bytes<C>;
    const int lane = lane_index();
    char* const staged = staged_ + warp_index() * Tile::template staged_bytes<C>;
#pragma unroll
    for (int part = 0; part < 2 * Product::row_parts; ++part) {
      await_bulk_reads();
      __syncwarp();
#pragma unroll
      for (int first = 0; first < Product::column_parts; first += 2) {
        C* const to = reinterpret_cast<C*>(staged + lane / 4 * row_bytes) + first * 8 + first_of_four();
        store_four(to, four_sums(product, part, first));
      }
      Product::publish();
      __syncwarp();
      if (lines.at[part] != nullptr) {
        bulk_store(lines.at[part], static_cast<unsigned>(__cvta_generic_to_shared(staged)) + lane * row_bytes, bytes);
      }
      commit_bulk_stores();
    }
  }

  /// Clears the lines of a step from the `line`-th of the inner index on: those of rows of another group, where they
  /// are rows of a matrix. All threads that multiply call.
  __device__ void clear_from(unsigned stage, int line) {
    constexpr int words = Tile::line_bytes / sizeof(uint4), blocks = (Tile::rows + Tile::columns) / 64;
    constexpr unsigned block_bytes = Tile::inner * Tile::line_bytes;
    const int count = (Tile::inner - line) * words;
    for (int block = 0; block < blocks; ++block) {
      const unsigned at = block < Tile::rows / 64 ? stage * Tile::a_bytes + block * block_bytes
                                                  : Tile::stages * Tile::a_bytes + stage * Tile::b_bytes +
                                                        (block - Tile::rows / 64) * block_bytes;
      auto* const to = reinterpret_cast<uint4*>(factors_ + at) + line * words;
      for (int i = int(threadIdx.x); i < count; i += Tile::threads) to[i] = uint4{};
    }
    Product::publish();
    asm volatile("bar.sync 1, %0;" ::"n"(Tile::threads) : "memory");
  }

  static_assert(Tile::pending <= 1);
  const TensorMaps& maps_;
  char *factors_, *staged_;
  unsigned a_, b_, barriers_;
  Job* jobs_;
};

}  // namespace moe_mamba::inline v0_2::cuda::detail
