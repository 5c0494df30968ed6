#pragma once

#include <cstdint>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/counting_sort.cuh"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/vector.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/embedding.hpp"

/// Embedding of tokens on a CUDA device; the contract is in ops/embedding.hpp. Forward, x[t] = weight[tokens[t]] is a
/// gather. Backward, dweight[tokens[t]] += dx[t] is a segmented sum over the tokens sorted by id:
///
///   counting_sort, digit by digit of the ids
///   sum_runs_kernel     a block per chunk of sorted tokens: whole segments → dweight, partial sums of the others
///   join_runs_kernel    adds up the partial sums of segments that span chunks, in order → dweight
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

template <class C, class S>
struct EmbedVector {
  const Token* tokens;
  MatrixView<const S> weight;
  MatrixView<C> x;
  template <int count>
  __device__ void operator()(Index t, Index i) const {
    const auto from = load<count>(weight, tokens[t], i);
    Vector<C, count> to;
    for (int j = 0; j < count; ++j) to.values[j] = static_cast<C>(from.values[j]);
    store<count>(to, x, t, i);
  }
};

/// A digit of the token at each position of an order; a null order is that of the tokens.
struct TokenDigit {
  static constexpr int bits = 8;
  const Token* tokens;
  const std::int32_t* order;
  int shift;
  __device__ Index operator()(Index i) const {
    return (tokens[order == nullptr ? i : order[i]] >> shift) & ((1 << bits) - 1);
  }
};

struct PlaceToken {
  const std::int32_t* order;
  const Index* offsets;
  std::int32_t* sorted;
  __device__ void operator()(Index i, Index digit, Index position) const {
    sorted[offsets[digit] + position] = order == nullptr ? static_cast<std::int32_t>(i) : order[i];
  }
};

/// Tokens sorted by id, in chunks whose sums over segments of equal ids are computed in parallel. A segment within one
/// chunk is added to its row of dweight; of a segment that spans chunks, each chunk stores a partial sum.
template <class C>
struct SortedTokens {
  static constexpr int chunk = 128;

  const Token* tokens;
  const std::int32_t* order;
  Index count;
  MatrixView<const C> dx;
  MatrixView<C> dweight;
  C* heads;  // (chunks, columns): partial sums of segments that begin in an earlier chunk
  C* tails;  // (chunks, columns): partial sums of segments that begin here and continue in the next chunk

  __device__ Token token(Index s) const { return tokens[order[s]]; }
  __device__ bool begins(Index s) const { return s == 0 || token(s - 1) != token(s); }
  __device__ bool ends(Index s) const { return s == count - 1 || token(s + 1) != token(s); }
};

template <class C>
__global__ void __launch_bounds__(SortedTokens<C>::chunk) sum_runs_kernel(SortedTokens<C> sorted) {
  constexpr int chunk = SortedTokens<C>::chunk, batch = 8;
  __shared__ std::int32_t rows[chunk];
  __shared__ Token ids[chunk];
  __shared__ bool last_of_run[chunk];
  const Index first = Index(blockIdx.x) * chunk;
  const int here = int(min(Index{chunk}, sorted.count - first));
  const int thread = int(threadIdx.x);
  if (thread < here) {
    rows[thread] = sorted.order[first + thread];
    ids[thread] = sorted.tokens[rows[thread]];
    last_of_run[thread] = sorted.ends(first + thread);
  }
  const bool continues = !sorted.begins(first);
  __syncthreads();

  const Index columns = sorted.dx.columns;
  const Index column = Index(blockIdx.y) * chunk + thread;
  if (column >= columns) return;
  bool from_before = continues;
  C sum = 0;
  for (int start = 0; start < here; start += batch) {
    C values[batch];  // all loaded before the first use
    for (int j = 0; j < batch; ++j) values[j] = start + j < here ? sorted.dx(rows[start + j], column) : C(0);
    for (int j = 0; j < batch && start + j < here; ++j) {
      sum += values[j];
      const bool end = last_of_run[start + j];
      if (!end && start + j < here - 1) continue;
      if (from_before) {
        sorted.heads[blockIdx.x * columns + column] = sum;
      } else if (!end) {
        sorted.tails[blockIdx.x * columns + column] = sum;
      } else {
        sorted.dweight(ids[start + j], column) += sum;
      }
      sum = 0;
      from_before = false;
    }
  }
}

/// Adds up the segments that begin in a chunk and end in a later one.
template <class C>
__global__ void __launch_bounds__(SortedTokens<C>::chunk) join_runs_kernel(SortedTokens<C> sorted) {
  constexpr int chunk = SortedTokens<C>::chunk;
  const Index columns = sorted.dx.columns, column = Index(blockIdx.y) * chunk + threadIdx.x;
  const Index next = Index(blockIdx.x + 1) * chunk;  // the first position of the next chunk
  if (column >= columns || next >= sorted.count || sorted.begins(next)) return;
  const Token id = sorted.token(next);
  const Index first = next - chunk;
  if (sorted.token(first) == id && !sorted.begins(first)) return;  // it begins in an earlier chunk
  C sum = sorted.tails[blockIdx.x * columns + column];
  for (Index at = next; at < sorted.count && sorted.token(at) == id; at += chunk) {
    sum += sorted.heads[at / chunk * columns + column];
  }
  sorted.dweight(id, column) += sum;
}

}  // namespace detail

/// x[t] = weight[tokens[t]]
template <ComputeScalar C, StorageScalar S>
void embed(Device& device, const Token* tokens, MatrixView<const S> weight, MatrixView<C> x) {
  const detail::EmbedVector<C, S> each{tokens, weight, x};
  detail::for_vectors(device, {x.rows}, x.columns, each, weight, x);
}

/// dweight[tokens[t]] += dx[t]. Tokens are sorted by id, 2^18 at a time, so each row is summed in a fixed order without
/// atomic operations, and a frequent token's row by many blocks.
template <ComputeScalar C>
void embed_backward(Device& device, const Token* tokens, Input<C> dx, MatrixView<C> dweight) {
  using detail::TokenDigit;
  using Sorted = detail::SortedTokens<C>;
  constexpr Index most = Index{1} << 18, digits = Index{1} << TokenDigit::bits;
  for (Index first = 0; first < dx.rows; first += most) {
    const Index count = std::min(most, dx.rows - first);
    Arena arena(device.scratch());
    std::int32_t* const orders[] = {arena.take<std::int32_t>(count), arena.take<std::int32_t>(count)};
    Index* const offsets = arena.take<Index>(digits + 1);
    const std::int32_t* order = nullptr;
    for (int shift = 0; shift == 0 || (dweight.rows - 1) >> shift > 0; shift += TokenDigit::bits) {
      std::int32_t* const sorted = orders[shift / TokenDigit::bits % 2];
      detail::counting_sort(device, count, digits, count, TokenDigit{tokens + first, order, shift},
                            detail::PlaceToken{order, offsets, sorted}, offsets, nullptr, arena);
      order = sorted;
    }

    const Index chunks = ceiling_divide<Index>(count, Sorted::chunk);
    const Index room = Index(Device::scratch_bytes - arena.used()) / Index(2 * sizeof(C)) / chunks;
    const Index columns = std::min(dx.columns, room / Sorted::chunk * Sorted::chunk);
    C* const heads = arena.take<C>(chunks * columns);
    C* const tails = arena.take<C>(chunks * columns);
    for (Index column = 0; column < dx.columns; column += columns) {
      const Index here = std::min(columns, dx.columns - column);
      const Sorted sorted{tokens + first,
                          order,
                          count,
                          dx.row_block(first, count).column_block(column, here),
                          dweight.column_block(column, here),
                          heads,
                          tails};
      const dim3 blocks(unsigned(chunks), unsigned(ceiling_divide<Index>(here, Sorted::chunk)));
      detail::sum_runs_kernel<<<blocks, Sorted::chunk, 0, device.stream()>>>(sorted);
      check_launch("sum_runs_kernel");
      detail::join_runs_kernel<<<blocks, Sorted::chunk, 0, device.stream()>>>(sorted);
      check_launch("join_runs_kernel");
    }
  }
}

}  // namespace moe_mamba::inline v0_2::cuda
