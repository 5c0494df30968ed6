#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/elements.cuh"
#include "moe_mamba/cuda/common/mathematics.cuh"
#include "moe_mamba/cuda/common/mma.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/cuda/elementwise.cuh"
#include "moe_mamba/cuda/linear/blas.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"
#include "moe_mamba/ops/cross_entropy.hpp"

/// The fused head and cross-entropy loss of a language model on a CUDA device; the contract is in
/// ops/cross_entropy.hpp. For a row x of D numbers with target y:
///
///   logits = W x    total = Σ_v exp(logits_v - most),  most = max_v logits_v    loss = most + log(total) - logits_y
///   dlogits = (exp(logits - most) / total - one_hot(y)) / n    dx = Wᵀ dlogits    dW += dlogits xᵀ
///
///   for each block of rows:
///     logits of the block, a matrix product
///     softmax_cross_entropy_kernel    a block per row: one pass for most and total (online softmax), one for dlogits
///     dx and dW, matrix products
///   add up the losses of all rows
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// The stride of rows of logits, which are aligned to 16 bytes: cuBLAS is slow otherwise.
template <ComputeScalar C>
constexpr Index logits_stride(Index vocabulary) {
  constexpr Index run = 16 / Index(sizeof(C));
  return ceiling_divide(std::max<Index>(vocabulary, 1), run) * run;
}

/// Upper bound on the rows whose logits are held at a time: 1 GiB of logits, so that dweight is updated only a few
/// times, but enough rows for the matrix products. It grows with `tokens`, so memory for a batch is enough for smaller
/// ones.
template <ComputeScalar C>
constexpr Index most_head_rows(Index tokens, Index vocabulary) {
  const Index room = (Index(1) << 30) / (logits_stride<C>(vocabulary) * Index(sizeof(C)));
  return std::min(tokens, std::clamp<Index>(room / 128 * 128, 256, 8192));
}

/// Rows per block: as few blocks as that allows, of about the same size. Depends on sizes alone, so sums do too.
template <ComputeScalar C>
constexpr Index head_block(Index tokens, Index vocabulary) {
  const Index most = most_head_rows<C>(tokens, vocabulary);
  if (tokens <= most) return tokens;
  const Index blocks = ceiling_divide(tokens, most);
  return std::min(most, ceiling_divide(ceiling_divide(tokens, blocks), Index{128}) * 128);
}

/// The scratch buffers of head_cross_entropy for activations of type A and logits of type C.
template <class A, ComputeScalar C = compute_t<A>>
struct HeadBuffers {
  C* logits;       // (block, V), rows logits_stride apart; overwritten with their gradients
  C* dx;           // (block, D), if dx is rounded; otherwise null
  double* losses;  // (T)

  HeadBuffers(Arena& arena, Index tokens, Index vocabulary, Index width)
      : logits(arena.take<C>(most_head_rows<C>(tokens, vocabulary) * logits_stride<C>(vocabulary))),
        dx(std::is_same_v<A, C> ? nullptr : arena.take<C>(most_head_rows<C>(tokens, vocabulary) * width)),
        losses(arena.take<double>(tokens)) {}
};

/// The largest value of a block, in each of its threads; NaNs are ignored.
template <int threads, class C>
__device__ inline C block_largest(C value) {
  constexpr int warps = threads / warp_size;
  __shared__ C largest[warps];
  const auto larger = [](C a, C b) { return b > a ? b : a; };
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value = larger(value, __shfl_xor_sync(full_mask, value, distance));
  }
  if (lane_index() == 0) largest[warp_index()] = value;
  __syncthreads();
  for (int warp = 0; warp < warps; ++warp) value = larger(value, largest[warp]);
  return value;
}

struct CountsAsTarget {
  const Token* targets;
  __device__ double operator()(Index, Index i) const { return targets[i] == masked_target ? 0.0 : 1.0; }
};

/// Logits that a thread reads before it uses any of them.
inline constexpr int logits_at_a_time = 4;

/// exp(x) for x <= 0, a logit minus the largest: in float by the special function unit, with a relative error of about
/// 1e-7 plus that of rounding x log2(e).
__device__ __forceinline__ float exponential_of(float x) { return power_of_two(x * std::numbers::log2e_v<float>); }
__device__ __forceinline__ double exponential_of(double x) { return exp(x); }

/// One block: the loss of a row of logits and, with `gradients`, in place from the start of the row and as elements of
/// type G, (softmax(logits) - one_hot(target)) / n, where n is the normaliser, or max(*count, 1) if that is 0.
template <int threads, class G, class C>
__global__ void __launch_bounds__(threads)
    softmax_cross_entropy_kernel(MatrixView<C> logits, const Token* targets, const double* count, Index normaliser,
                                 bool gradients, double* losses) {
  const Index row = blockIdx.x, vocabulary = logits.columns;
  const int thread = int(threadIdx.x);
  const Token target = targets[row];
  const C* const at = logits.row(row);
  G* const gradient = reinterpret_cast<G*>(logits.row(row));
  if (target == masked_target) {
    if (thread == 0) losses[row] = 0;
    for (Index v = thread; gradients && v < vocabulary; v += threads) gradient[v] = G(C(0));
    return;
  }
  const double target_logit = double(at[target]);

  // The running maximum starts at the lowest finite number, as -infinity minus itself would be NaN. A logit of
  // +infinity does give NaN, as a NaN does.
  constexpr C infinity = INFINITY;
  C largest = sizeof(C) == 8 ? C(-1.7976931348623157e308) : C(-3.402823466e38f), sum = 0;
  for (Index first = 0; first < vocabulary; first += threads * logits_at_a_time) {
    C some[logits_at_a_time];
    const C before = largest;
#pragma unroll
    for (int i = 0; i < logits_at_a_time; ++i) {
      const Index v = first + i * threads + thread;
      some[i] = v < vocabulary ? at[v] : -infinity;
    }
#pragma unroll
    for (int i = 0; i < logits_at_a_time; ++i) largest = some[i] > largest ? some[i] : largest;
    sum *= exponential_of(before - largest);
#pragma unroll
    for (int i = 0; i < logits_at_a_time; ++i) sum += exponential_of(some[i] - largest);
  }
  // Over the block: each thread rescales its sum once, to the block's largest logit.
  const C most = block_largest<threads>(largest);
  const double total = block_sum<threads>(double(sum * exponential_of(largest - most)));
  if (thread == 0) losses[row] = double(most) + log(total) - target_logit;
  if (!gradients) return;
  const double mean = 1 / (normaliser > 0 ? double(normaliser) : *count > 1 ? *count : 1.0);
  const C factor = static_cast<C>(mean / total), scale = static_cast<C>(mean);
  for (Index first = 0; first < vocabulary; first += threads * logits_at_a_time) {
    C some[logits_at_a_time];
#pragma unroll
    for (int i = 0; i < logits_at_a_time; ++i) {
      const Index v = first + i * threads + thread;
      if (v < vocabulary) some[i] = at[v];
    }
    // Gradients narrower than logits overwrite logits of this and earlier rounds only, and the barrier protects this
    // round's.
    if constexpr (sizeof(G) < sizeof(C)) __syncthreads();
#pragma unroll
    for (int i = 0; i < logits_at_a_time; ++i) {
      const Index v = first + i * threads + thread;
      if (v < vocabulary) gradient[v] = G(exponential_of(some[i] - most) * factor - (v == target ? scale : C(0)));
    }
  }
}

}  // namespace detail

/// Bytes of scratch that head_cross_entropy needs for `tokens` rows of type C.
template <class C>
std::size_t head_cross_entropy_scratch(const Device&, Index tokens, Index vocabulary, Index width) {
  return bytes_of<detail::HeadBuffers<C>>(tokens, vocabulary, width);
}

/// Works on blocks of rows: computes the block's logits, the softmax and loss of each row, the gradients of the logits
/// in place, and from these the block's dx and its contribution to dweight.
template <StorageScalar C, StorageScalar S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  using T = compute_t<C>;
  const Index tokens = head.x.rows, vocabulary = head.weight.rows;
  const bool gradients = head.dx.data != nullptr;
  // Gradients of logits are written in the type in which the following products take them.
  using Gradient = std::conditional_t<std::is_same_v<S, bfloat16>, bfloat16, T>;
  constexpr Index gradients_in_logit = Index(sizeof(T) / sizeof(Gradient));
  const Index block = detail::head_block<T>(tokens, vocabulary);
  Arena arena = head.scratch;
  const detail::HeadBuffers<C> buffers(arena, tokens, vocabulary, head.x.columns);

  detail::sum_elements(device, 1, tokens, true, detail::CountsAsTarget{head.targets}, head.totals + 1);
  for (Index first = 0; first < tokens; first += block) {
    const Index rows = std::min(block, tokens - first);
    const MatrixView<T> logits{buffers.logits, rows, vocabulary, detail::logits_stride<T>(vocabulary)};
    const MatrixView<const C> x = head.x.row_block(first, rows);
    linear(device, x, head.weight, logits);
    constexpr int threads = 1024;
    detail::softmax_cross_entropy_kernel<threads, Gradient><<<unsigned(rows), threads, 0, device.stream()>>>(
        logits, head.targets + first, head.totals + 1, head.normaliser, gradients, buffers.losses + first);
    check_launch("softmax_cross_entropy_kernel");
    if (gradients) {
      const MatrixView<const Gradient> dlogits{reinterpret_cast<const Gradient*>(logits.data), rows, vocabulary,
                                               logits.stride * gradients_in_logit};
      const MatrixView<C> dx = head.dx.row_block(first, rows);
      if constexpr (std::is_same_v<C, T>) {
        detail::blas_product(device, dlogits, detail::Transpose::no, head.weight, detail::Transpose::no, dx,
                             Into::assign);
      } else {
        const auto sums = matrix(buffers.dx, rows, dx.columns);
        detail::blas_product(device, dlogits, detail::Transpose::no, head.weight, detail::Transpose::no, sums,
                             Into::assign);
        copy(device, sums, dx);
      }
      linear_backward_weight<S>(device, dlogits, x, head.dweight);
    }
  }
  detail::total_kernel<<<1, detail::ElementGrid::threads, 0, device.stream()>>>(buffers.losses, tokens, head.totals);
  check_launch("total_kernel");
}

}  // namespace moe_mamba::inline v0_2::cuda
