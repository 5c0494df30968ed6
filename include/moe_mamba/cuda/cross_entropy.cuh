#pragma once

#include <algorithm>

#include "moe_mamba/cuda/linear.cuh"
#include "moe_mamba/cuda/pieces.cuh"
#include "moe_mamba/ops/cross_entropy.hpp"

/// The head of a language model and its loss in one, on a CUDA device; the contract is in ops/cross_entropy.hpp.
namespace moe_mamba::cuda {

namespace detail {

/// Rows whose logits are held at a time: 256 MiB of them, so that dweight is passed over few times, but enough rows for
/// the matrix products, and no more than a batch can have. Depends on sizes alone, so that sums do.
template <ComputeScalar C>
constexpr Index head_block(Index tokens, Index vocabulary) {
  const Index row_bytes = std::max<Index>(1, vocabulary) * Index(sizeof(C));
  return std::min(tokens, std::clamp<Index>((Index(256) << 20) / row_bytes, 256, 8192));
}

/// Memory of head_cross_entropy.
template <ComputeScalar C>
struct HeadBuffers {
  C* logits;       // (block, V); their gradients in the end
  double* losses;  // (T)

  HeadBuffers(Arena& arena, Index tokens, Index vocabulary)
      : logits(arena.take<C>(head_block<C>(tokens, vocabulary) * vocabulary)), losses(arena.take<double>(tokens)) {}
};

/// The largest of some logits, and the sum of the exponentials of all less it.
struct LogSum {
  double largest, sum;
};

__device__ inline LogSum joined(LogSum a, LogSum b) {
  const double largest = a.largest > b.largest ? a.largest : b.largest;
  return {largest, a.sum * exp(a.largest - largest) + b.sum * exp(b.largest - largest)};
}

struct CountsAsTarget {
  const Token* targets;
  __device__ double operator()(Index, Index i) const { return targets[i] == masked_target ? 0.0 : 1.0; }
};

/// A row of logits: its loss, and with `gradients` in place (softmax(logits) - one_hot(target)) / max(*count, 1).
template <int threads, class C>
__global__ void __launch_bounds__(threads)
    softmax_cross_entropy_kernel(MatrixView<C> logits, const Token* targets, const double* count, bool gradients,
                                 double* losses) {
  constexpr int warps = threads / warp_size;
  __shared__ LogSum shared[warps];
  const Index row = blockIdx.x, vocabulary = logits.columns;
  const int thread = int(threadIdx.x);
  const Token target = targets[row];
  C* const at = logits.row(row);
  if (target == masked_target) {
    if (thread == 0) losses[row] = 0;
    for (Index v = thread; gradients && v < vocabulary; v += threads) at[v] = C(0);
    return;
  }
  const double target_logit = double(at[target]);

  // The largest so far starts at the lowest number, not at -infinity, which is not to be subtracted from itself.
  // +infinity is: it comes out as NaN, as NaN does.
  C largest = sizeof(C) == 8 ? C(-1.7976931348623157e308) : C(-3.402823466e38f), sum = 0;
  for (Index v = thread; v < vocabulary; v += threads) {
    const C logit = at[v];
    if (logit > largest) {
      sum = sum * exp(largest - logit) + exp(logit - logit);
      largest = logit;
    } else {
      sum += exp(logit - largest);
    }
  }
  LogSum all{double(largest), double(sum)};
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    all = joined(all,
                 {__shfl_xor_sync(whole_warp, all.largest, distance), __shfl_xor_sync(whole_warp, all.sum, distance)});
  }
  if (thread % warp_size == 0) shared[thread / warp_size] = all;
  __syncthreads();
  all = shared[0];
  for (int warp = 1; warp < warps; ++warp) all = joined(all, shared[warp]);

  if (thread == 0) losses[row] = all.largest + log(all.sum) - target_logit;
  if (!gradients) return;
  const double mean = 1 / (*count > 1 ? *count : 1.0);
  const C most = static_cast<C>(all.largest), factor = static_cast<C>(mean / all.sum), scale = static_cast<C>(mean);
  for (Index v = thread; v < vocabulary; v += threads) {
    at[v] = exp(at[v] - most) * factor - (v == target ? scale : C(0));
  }
}

}  // namespace detail

/// Bytes of scratch that head_cross_entropy needs for `tokens` rows and compute type C, or whatever it is for void.
template <class C = void>
std::size_t head_cross_entropy_scratch(const Device& device, Index tokens, Index vocabulary) {
  if constexpr (std::is_void_v<C>) {
    return std::max(head_cross_entropy_scratch<float>(device, tokens, vocabulary),
                    head_cross_entropy_scratch<double>(device, tokens, vocabulary));
  } else {
    return bytes_of<detail::HeadBuffers<C>>(tokens, vocabulary);
  }
}

/// Works on blocks of rows: their logits, softmax and loss of each row, and from the gradients of the logits, in the
/// same memory, the block's dx and its part of dweight.
template <ComputeScalar C, StorageScalar S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  constexpr int threads = 512;
  const Index tokens = head.x.rows, vocabulary = head.weight.rows;
  const bool gradients = head.dx.data != nullptr;
  const Index block = detail::head_block<C>(tokens, vocabulary);
  Arena arena = head.scratch;
  const detail::HeadBuffers<C> buffers(arena, tokens, vocabulary);

  detail::sum_elements(device, 1, tokens, true, detail::CountsAsTarget{head.targets}, head.totals + 1);
  for (Index first = 0; first < tokens; first += block) {
    const Index rows = std::min(block, tokens - first);
    const MatrixView<C> logits = matrix(buffers.logits, rows, vocabulary);
    const MatrixView<const C> x = head.x.row_block(first, rows);
    linear(device, x, head.weight, logits);
    detail::softmax_cross_entropy_kernel<threads><<<unsigned(rows), threads, 0, device.stream()>>>(
        logits, head.targets + first, head.totals + 1, gradients, buffers.losses + first);
    check_launch("softmax_cross_entropy_kernel");
    if (gradients) {
      linear_backward_input(device, logits, head.weight, head.dx.row_block(first, rows), Into::assign);
      linear_backward_weight(device, logits, x, head.dweight);
    }
  }
  detail::total_kernel<<<1, detail::ElementGrid::threads, 0, device.stream()>>>(buffers.losses, tokens, head.totals);
  check_launch("total_kernel");
}

}  // namespace moe_mamba::cuda
