#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/model/stage.hpp"
#include "moe_mamba/ops/elementwise.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba::inline v0_2::detail {

/// A model of real-valued series: input layer, body, norm and output layer, both linear with bias.
template <class Parts, int Inputs, int Outputs>
struct SeriesModel {
  using Body = typename Parts::Body;
  using Norm = typename Parts::Norm;

  static constexpr int width = Parts::width;
  static constexpr int input_width = Inputs;
  static constexpr int output_width = Outputs;
  static constexpr double auxiliary_weight = Parts::auxiliary_weight;

  static constexpr Index input_bias = Index{width} * input_width;
  static constexpr Index body_offset = input_bias + width;
  static constexpr Index norm_offset = body_offset + Body::parameters;
  static constexpr Index output_offset = norm_offset + parameters_of<Norm>;
  static constexpr Index output_bias = output_offset + Index{output_width} * width;

  static constexpr Index parameters = [] {
    constexpr Index count = output_bias + output_width;
    check<NumberOfParameters<count>>();
    return count;
  }();
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
    const Initializer in = Initializer::uniform(input_width), out = Initializer::uniform(width);
    at(matrix_parameter("input.weight", width, input_width, in), 0);
    at(vector_parameter("input.bias", width, ParameterKind::bias, in), input_bias);
    Index offset = body_offset, layer = 0;
    Body::visit_parameters(visit, offset, layer);
    visit_named<Norm>(visit, offset, "norm_f.");
    at(matrix_parameter("output.weight", output_width, width, out), output_offset);
    at(vector_parameter("output.bias", output_width, ParameterKind::bias, out), output_bias);
  }

  /// Scratch of the input and output layers, in bytes per thread.
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return std::max(linear_thread_scratch<C>(device, shape.tokens(), Index{Inputs}, Index{width}, training),
                    linear_thread_scratch<C>(device, shape.tokens(), Index{width}, Index{Outputs}, training));
  }

  template <class Device, class S, class C>
  static void enter(const ForwardPass<Device, S, C>& pass, const compute_t<C>* inputs, MatrixView<compute_t<C>> x) {
    linear(pass.run.device, matrix(inputs, x.rows, input_width), matrix(pass.parameters, width, input_width), x);
    add_bias(pass.run.device, pass.parameters + input_bias, x);
  }

  /// dinputs: (T, I), overwritten, or null.
  template <class Device, class S, class C>
  static void enter_backward(const BackwardPass<Device, S, C>& pass, const compute_t<C>* inputs,
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
  static void leave(const ForwardPass<Device, S, C>& pass, MatrixView<const C> x, MatrixView<compute_t<C>> outputs) {
    linear(pass.run.device, x, matrix(pass.parameters + output_offset, output_width, width), outputs);
    add_bias(pass.run.device, pass.parameters + output_bias, outputs);
  }

  template <class Device, class S, class C>
  static void leave_backward(const BackwardPass<Device, S, C>& pass, MatrixView<const C> x,
                             MatrixView<const compute_t<C>> doutputs, MatrixView<C> dx) {
    linear_backward_weight<S>(pass.run.device, doutputs, x,
                              matrix(pass.gradients + output_offset, output_width, width));
    bias_backward(pass.run.device, doutputs, pass.gradients + output_bias);
    linear_backward_input(pass.run.device, doutputs, matrix(pass.parameters + output_offset, output_width, width), dx,
                          Into::assign);
  }
};

}  // namespace moe_mamba::inline v0_2::detail
