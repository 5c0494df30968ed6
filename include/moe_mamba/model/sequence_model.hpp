#pragma once

#include <string_view>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/model/composition.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba {

namespace detail {

template <class Model, class... Arguments>
consteval bool check_sequence_model() {
  check_integer_option<Model, Inputs, 1, 1 << 20, Arguments...>();
  check_integer_option<Model, Outputs, 1, 1 << 20, Arguments...>();
  check<ModelNeeds<Model, Inputs<4>, times_given<Inputs, Arguments...>>>();
  check<ModelNeeds<Model, Outputs<2>, times_given<Outputs, Arguments...>>>();
  constexpr bool takes_tokens =
      (false || ... || (is_integer_option<Vocabulary, Arguments> || is_one_of<Arguments, TiedHead, Head>));
  static_assert(
      !takes_tokens,
      "SequenceModel takes Inputs<I> and Outputs<O>, not Vocabulary<V>, TiedHead or Head; a model over tokens is "
      "a LanguageModel");
  return check_model<Model, Arguments...>();
}

}  // namespace detail

/// A model of real-valued series: linear map in, body, norm, linear map out, both maps with bias. In any order it takes
/// Inputs<I>, Outputs<O> and Width<D>, which must be given, and PreNorm<RmsNorm<>>, FinalNorm<RmsNorm<>>,
/// SumAuxiliaryLosses (or AverageAuxiliaryLosses); everything else is the body, in its order (see
/// model/composition.hpp).
///
/// Parameters, in this order: input.weight (D, I), input.bias (D); layers.<i>.norm.… and layers.<i>.mixer.… for each
/// layer, counted through all repeats; norm_f.…; output.weight (O, D), output.bias (O).
template <class... Arguments>
struct SequenceModel {
  static_assert(detail::check_sequence_model<SequenceModel, Arguments...>());

  using Parts = detail::ModelParts<SequenceModel, Arguments...>;
  using Body = typename Parts::Body;
  using Norm = typename Parts::Norm;

  static constexpr int width = Parts::width;
  static constexpr int input_width = detail::option_value<Inputs, 1, Arguments...>();
  static constexpr int output_width = detail::option_value<Outputs, 1, Arguments...>();
  static constexpr double auxiliary_weight = Parts::auxiliary_weight;

  static constexpr Index input_bias = Index{width} * input_width;
  static constexpr Index body_offset = input_bias + width;
  static constexpr Index norm_offset = body_offset + Body::parameters;
  static constexpr Index output_offset = norm_offset + parameters_of<Norm>;
  static constexpr Index output_bias = output_offset + Index{output_width} * width;

  static constexpr Index parameters = output_bias + output_width;
  static constexpr Index parameter_count =
      Body::parameter_count + static_cast<Index>(layer_parameters<Norm>.size()) + 4;
  static constexpr Index active_parameters = parameters - Body::parameters + Body::active_parameters;
  static constexpr double flops_per_token =
      Body::flops_per_token + 2.0 * width * (static_cast<double>(input_width) + output_width);

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit) {
    const auto at = [&](Parameter parameter, Index offset) {
      parameter.offset = offset;
      visit(parameter);
    };
    const Initial in{Initial::Law::uniform, 1, input_width}, out{Initial::Law::uniform, 1, width};
    at(matrix_parameter("input.weight", width, input_width, in), 0);
    at(vector_parameter("input.bias", width, ParameterKind::bias, in), input_bias);
    Index offset = body_offset, layer = 0;
    Body::visit_parameters(visit, offset, layer);
    detail::visit_named<Norm>(visit, offset, "norm_f.");
    at(matrix_parameter("output.weight", output_width, width, out), output_offset);
    at(vector_parameter("output.bias", output_width, ParameterKind::bias, out), output_bias);
  }

  template <class Device, class S, class C>
  static void enter(const detail::ForwardPass<Device, S, C>& pass, const compute_t<C>* inputs,
                    MatrixView<compute_t<C>> x) {
    linear(pass.run.device, matrix(inputs, x.rows, input_width), matrix(pass.parameters, width, input_width), x);
    add_bias(pass.run.device, pass.parameters + input_bias, x);
  }

  /// dinputs: (T, I), overwritten, or null.
  template <class Device, class S, class C>
  static void enter_backward(const detail::BackwardPass<Device, S, C>& pass, const compute_t<C>* inputs,
                             MatrixView<const compute_t<C>> dx, compute_t<C>* dinputs) {
    linear_backward_weight<S>(pass.run.device, dx, matrix(inputs, dx.rows, input_width),
                              matrix(pass.gradients, width, input_width));
    bias_backward(pass.run.device, dx, pass.gradients + input_bias);
    if (dinputs != nullptr) {
      linear_backward_input(pass.run.device, dx, matrix(pass.parameters, width, input_width),
                            matrix(dinputs, dx.rows, input_width), Into::assign);
    }
  }

  template <class Device, class S, class C>
  static void leave(const detail::ForwardPass<Device, S, C>& pass, MatrixView<const C> x,
                    MatrixView<compute_t<C>> outputs) {
    linear(pass.run.device, x, matrix(pass.parameters + output_offset, output_width, width), outputs);
    add_bias(pass.run.device, pass.parameters + output_bias, outputs);
  }

  template <class Device, class S, class C>
  static void leave_backward(const detail::BackwardPass<Device, S, C>& pass, MatrixView<const C> x,
                             MatrixView<const compute_t<C>> doutputs, MatrixView<C> dx) {
    linear_backward_weight<S>(pass.run.device, doutputs, x,
                              matrix(pass.gradients + output_offset, output_width, width));
    bias_backward(pass.run.device, doutputs, pass.gradients + output_bias);
    linear_backward_input(pass.run.device, doutputs, matrix(pass.parameters + output_offset, output_width, width), dx,
                          Into::assign);
  }
};

}  // namespace moe_mamba
