#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/masked_target.hpp"

/// The head of a language model fused with its loss: logits, softmax and cross-entropy are computed for blocks of the batch, so
/// that all logits never exist at a time.
///
///   head_cross_entropy(device, HeadCrossEntropy<C, S>{…})  totals[0] = the sum over unmasked targets of
///                                                          logsumexp(W x_t) - (W x_t)[target_t], in double
///                                                          totals[1] = their number
///   head_cross_entropy_scratch<C>(device, tokens, vocabulary, width)   bytes of scratch for this many rows of x
///
/// If dx is given, the same pass also computes the gradients of the mean, totals[0] / max(totals[1], 1), or with a normaliser
/// n > 0, for a batch that is a part of a larger one, those of totals[0] / n.
namespace moe_mamba::inline v0_2 {

template <class C, class S>
struct HeadCrossEntropy {
  MatrixView<const C> x;             // (T, D)
  MatrixView<const S> weight;        // (V, D)
  const Token* targets;              // (T), 0 … V - 1 or masked_target
  MatrixView<C> dx;                  // (T, D), overwritten; null data: no gradients
  MatrixView<compute_t<C>> dweight;  // (V, D), added to
  double* totals;        // (2), overwritten, in the device's memory, so that the host need not wait for them
  Arena scratch;         // head_cross_entropy_scratch(…) bytes
  Index normaliser = 0;  // number of targets that gradients are the mean over; 0: the batch's own
};

}  // namespace moe_mamba::inline v0_2
