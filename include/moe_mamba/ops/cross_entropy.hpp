#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/masked_target.hpp"

/// The head of a language model and its loss in one: logits, softmax and cross-entropy over blocks of the batch, so
/// that never all logits are held.
///
///   head_cross_entropy(device, HeadCrossEntropy<C, S>{…})  totals[0] = the sum over unmasked targets of
///                                                          logsumexp(W x_t) - (W x_t)[target_t], in double
///                                                          totals[1] = how many there are
///   head_cross_entropy_scratch<C>(device, tokens, vocabulary, width)   bytes of scratch it needs for that many rows of x
///
/// With dx given, the gradients of the mean, totals[0] / max(totals[1], 1), are formed as well, in the same pass; with a
/// normaliser n > 0, those of totals[0] / n, as where a batch is a part of a larger one.
namespace moe_mamba::inline v0_2 {

template <class C, class S>
struct HeadCrossEntropy {
  MatrixView<const C> x;             // (T, D)
  MatrixView<const S> weight;        // (V, D)
  const Token* targets;              // (T), 0 … V - 1 or masked_target
  MatrixView<C> dx;                  // (T, D), overwritten; null data: no gradients
  MatrixView<compute_t<C>> dweight;  // (V, D), added to
  double* totals;        // (2), overwritten; they stay where the device works, so that nobody has to wait for them
  Arena scratch;         // head_cross_entropy_scratch(…) bytes
  Index normaliser = 0;  // number of targets that gradients are the mean over; 0: the batch's own
};

}  // namespace moe_mamba::inline v0_2
