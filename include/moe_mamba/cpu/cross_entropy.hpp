#pragma once

#include <algorithm>
#include <cmath>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"

/// The fused head and cross-entropy loss of a language model on the CPU; the contract is in ops/cross_entropy.hpp.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Rows whose logits are held at a time: 4 MiB of logits, but enough rows to amortise the packing of the matrix
/// products, and at most `tokens`. Depends on sizes alone, so sums do too.
template <ComputeScalar C>
constexpr Index head_block(Index tokens, Index vocabulary) {
  const Index row_bytes = std::max<Index>(1, vocabulary) * Index(sizeof(C));
  return std::min(tokens, std::clamp<Index>((Index(4) << 20) / row_bytes, 64, 4096));
}

/// The scratch buffers of head_cross_entropy.
template <ComputeScalar C>
struct HeadBuffers {
  C* logits;       // (block, V); overwritten with their gradients
  double* losses;  // (block)

  HeadBuffers(Arena& arena, Index tokens, Index vocabulary)
      : logits(arena.take<C>(head_block<C>(tokens, vocabulary) * vocabulary)),
        losses(arena.take<double>(head_block<C>(tokens, vocabulary))) {}
};

/// logsumexp(logits) - logits[target]; with `gradients`, logits become scale · (softmax(logits) - one_hot(target)).
template <ComputeScalar C>
inline double softmax_cross_entropy(C* logits, Index vocabulary, Token target, C scale, bool gradients) {
  constexpr Index chunk = 1024;  // summed in the compute type; the sums of chunks are added in double
  const C largest = sweep_max(logits, vocabulary);
  const double target_logit = double(logits[target]);
  double sum = 0;
  for (Index first = 0; first < vocabulary; first += chunk) {
    C* at = logits + first;
    sum += double(sweep_sum<C>(std::min(chunk, vocabulary - first), [=]<class Q>(Index v, Q partial) {
      const Q power = exponential(load<Q>(at + v) - largest);
      if (gradients) store(at + v, power);
      return partial + power;
    }));
  }
  if (gradients) {
    const C factor = static_cast<C>(double(scale) / sum);
    sweep<C>(vocabulary, [=]<class Q>(Index v) { store(logits + v, load<Q>(logits + v) * factor); });
    logits[target] -= scale;
  }
  return double(largest) + std::log(sum) - target_logit;
}

/// The pairwise sum of `count` numbers: rounding errors grow with log(count).
inline double pairwise_sum(const double* values, Index count) {
  if (count > 8) return pairwise_sum(values, count / 2) + pairwise_sum(values + count / 2, count - count / 2);
  double sum = 0;
  for (Index i = 0; i < count; ++i) sum += values[i];
  return sum;
}

}  // namespace detail

/// Bytes of scratch that head_cross_entropy needs for `tokens` rows of type C.
template <class C>
std::size_t head_cross_entropy_scratch(const Device&, Index tokens, Index vocabulary, Index /*width*/) {
  return bytes_of<detail::HeadBuffers<C>>(tokens, vocabulary);
}

/// Works on blocks of rows: computes the block's logits, the softmax and loss of each row, the gradients of the logits
/// in place, and from these the block's dx and its contribution to dweight.
template <ComputeScalar C, StorageScalar S>
void head_cross_entropy(Device& device, const HeadCrossEntropy<C, S>& head) {
  const Index tokens = head.x.rows, vocabulary = head.weight.rows;
  const bool gradients = head.dx.data != nullptr;
  const Index targets = tokens - std::count(head.targets, head.targets + tokens, masked_target);
  const C scale =
      static_cast<C>(1.0 / static_cast<double>(head.normaliser > 0 ? head.normaliser : std::max<Index>(targets, 1)));
  const Index block = detail::head_block<C>(tokens, vocabulary);
  Arena arena = head.scratch;
  const detail::HeadBuffers<C> buffers(arena, tokens, vocabulary);

  double loss = 0;
  for (Index first = 0; first < tokens; first += block) {
    const Index rows = std::min(block, tokens - first);
    const MatrixView<C> logits = matrix(buffers.logits, rows, vocabulary);
    const MatrixView<const C> x = head.x.row_block(first, rows);
    linear(device, x, head.weight, logits);
    const detail::Chunks chunks{rows, std::max<Index>(1, detail::task_elements / std::max<Index>(1, 4 * vocabulary))};
    device.parallel(chunks.chunks(), [&](Index chunk, int) {
      for (Index row = chunks.first(chunk); row < chunks.last(chunk); ++row) {
        const Token target = head.targets[first + row];
        buffers.losses[row] = 0;
        if (target != masked_target) {
          buffers.losses[row] = detail::softmax_cross_entropy(logits.row(row), vocabulary, target, scale, gradients);
        } else if (gradients) {
          std::fill_n(logits.row(row), vocabulary, C(0));
        }
      }
    });
    loss += detail::pairwise_sum(buffers.losses, rows);
    if (gradients) {
      linear_backward_input(device, logits, head.weight, head.dx.row_block(first, rows), Into::assign);
      linear_backward_weight<S>(device, logits, x, head.dweight);
    }
  }
  head.totals[0] = loss;
  head.totals[1] = static_cast<double>(targets);
}

}  // namespace moe_mamba::inline v0_2::cpu
