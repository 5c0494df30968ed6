#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/model/stage.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"
#include "moe_mamba/ops/embedding.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba::inline v0_2::detail {

/// A model over token ids: embedding, body, norm and head, which is the embedding's matrix if tied.
template <class Parts, int Vocabulary, bool TiedHead, bool UnitFanIn>
struct TokenModel {
  using Body = typename Parts::Body;
  using Norm = typename Parts::Norm;
  using Input = Token;

  static constexpr int width = Parts::width;
  static constexpr int vocabulary = Vocabulary;
  static constexpr int input_width = 1;
  static constexpr int output_width = vocabulary;
  static constexpr bool tied_head = TiedHead;
  static constexpr double auxiliary_weight = Parts::auxiliary_weight;

  static constexpr Index embedding_size = Index{vocabulary} * width;
  static constexpr Index body_offset = embedding_size;
  static constexpr Index norm_offset = body_offset + Body::parameters;
  static constexpr Index head_offset = tied_head ? 0 : norm_offset + parameters_of<Norm>;

  static constexpr Index parameters = [] {
    constexpr Index count = norm_offset + parameters_of<Norm> + (tied_head ? Index{0} : embedding_size);
    check<NumberOfParameters<count>>();
    return count;
  }();
  static constexpr Index parameter_count =
      Body::parameter_count + static_cast<Index>(layer_parameters<Norm>.size()) + (tied_head ? 1 : 2);
  /// The head counts in full, an untied embedding with one row.
  static constexpr Index active_parameters =
      Body::active_parameters + Norm::active_parameters + embedding_size + (tied_head ? Index{0} : Index{width});
  static constexpr double flops_per_token = Body::flops_per_token + 2.0 * static_cast<double>(embedding_size);

  /// The initialiser of embedding and head. A token's row of the embedding has a fan-in of 1, as nothing is multiplied
  /// by it.
  static constexpr Initializer initializer(Index fan_in) {
    return UnitFanIn ? Initializer::bounded_normal(0.1, fan_in) : Initializer::normal(0.02);
  }

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit) {
    visit(matrix_parameter("embedding.weight", vocabulary, width, initializer(1)));
    Index offset = body_offset, layer = 0;
    Body::visit_parameters(visit, offset, layer);
    visit_named<Norm>(visit, offset, "norm_f.");
    if (!tied_head) {
      Parameter head = matrix_parameter("lm_head.weight", vocabulary, width, initializer(width));
      head.offset = head_offset;
      visit(head);
    }
  }

  template <class Device, class S, class C>
  static void enter(const ForwardPass<Device, S, C>& pass, const Token* tokens, MatrixView<compute_t<C>> x) {
    embed(pass.run.device, tokens, matrix(pass.parameters, vocabulary, width), x);
  }

  template <class Device, class S, class C>
  static void enter_backward(const BackwardPass<Device, S, C>& pass, const Token* tokens,
                             MatrixView<const compute_t<C>> dx, compute_t<C>*) {
    embed_backward(pass.run.device, tokens, dx, matrix(pass.gradients, vocabulary, width));
  }

  template <class Device, class S, class C>
  static void leave(const ForwardPass<Device, S, C>& pass, MatrixView<const C> x, MatrixView<compute_t<C>> logits) {
    linear(pass.run.device, x, matrix(pass.parameters + head_offset, vocabulary, width), logits);
  }

  template <class Device, class S, class C>
  static void leave_backward(const BackwardPass<Device, S, C>& pass, MatrixView<const C> x,
                             MatrixView<const compute_t<C>> dlogits, MatrixView<C> dx) {
    linear_backward_weight<S>(pass.run.device, dlogits, x, matrix(pass.gradients + head_offset, vocabulary, width));
    linear_backward_input(pass.run.device, dlogits, matrix(pass.parameters + head_offset, vocabulary, width), dx,
                          Into::assign);
  }

  template <class C, class Device>
  static std::size_t loss_scratch(Device& device, Index tokens) {
    return head_cross_entropy_scratch<C>(device, tokens, Index{vocabulary}, Index{width});
  }

  /// Scratch of the head, in bytes per thread.
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return linear_thread_scratch<C>(device, shape.tokens(), Index{width}, Index{vocabulary}, training);
  }

  /// totals[0] = the sum of the unmasked targets' cross-entropies, totals[1] their number; if dx has data, gradients of
  /// the sum divided by `normaliser`, or of the mean if that is 0.
  template <class Device, class S, class C>
  static void loss(Device& device, const S* model_parameters, MatrixView<const C> x, const Token* targets,
                   Index normaliser, MatrixView<C> dx, compute_t<C>* gradients, double* totals, Arena scratch) {
    head_cross_entropy(
        device, HeadCrossEntropy<C, S>{
                    .x = x,
                    .weight = matrix(model_parameters + head_offset, vocabulary, width),
                    .targets = targets,
                    .dx = dx,
                    .dweight = matrix(gradients == nullptr ? nullptr : gradients + head_offset, vocabulary, width),
                    .totals = totals,
                    .scratch = scratch,
                    .normaliser = normaliser});
  }
};

}  // namespace moe_mamba::inline v0_2::detail
