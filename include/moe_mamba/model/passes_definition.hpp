#pragma once

#include <algorithm>

#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/ops/elementwise.hpp"

namespace moe_mamba {

/// What the passes of a model do, in terms of operations, which are found by the device's namespace.
template <class Definition, StorageScalar S, class Backend>
class PassesDefinition {
  static constexpr detail::WholeModel<Definition> checked{};
  using Table = Passes<Definition, S, Backend>;
  using C = typename Table::C;
  using A = activation_t<S, Backend>;
  using Input = typename Table::Input;
  using WorkspaceType = typename Table::WorkspaceType;
  using Update = typename Table::Update;
  using Body = typename Definition::Body;
  using Norm = typename Definition::Norm;

 public:
  static constexpr Table table() {
    Table table{scratch_bytes, body,   outputs, loss,         gradient, outputs_backward,
                body_backward, update, clear,   scale_values, nullptr,  nullptr};
    if constexpr (!Backend::Memory::on_host) {
      table.sample = [](Backend& device, const SampleTokens<C>& tokens) { sample(device, tokens); };
      table.sample_scratch = [](Backend& device, Index rows, Index vocabulary) {
        return sample_scratch<C>(device, rows, vocabulary);
      };
    }
    return table;
  }

 private:
  static std::size_t scratch_bytes(Backend& device, Shape largest, bool training) {
    const std::size_t body = Body::template scratch_bytes<A>(device, largest, training);
    if constexpr (TokenDefinition<Definition>) {
      return std::max(body, Definition::template loss_scratch<A>(device, largest.tokens()));
    } else {
      Arena counting;
      counting.take<C>(largest.tokens() * Definition::output_width);
      return std::max(body, counting.used());
    }
  }

  static void body(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                   StateView<C> states) {
    body_for(workspace, shape, parameters, inputs, states, nullptr);
  }

  /// `targets` of a language model say which tokens count in auxiliary losses; null: all.
  static void body_for(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                       StateView<C> states, const Token* targets) {
    const auto run = workspace.buffers(shape);
    const bool training = workspace.purpose_ == Purpose::training;
    const detail::ForwardPass<Backend, S, A> pass{
        {workspace.device_, shape, training, states, workspace.report_.data(), run.scratch, targets},
        parameters,
        run.body_tape};
    Definition::enter(pass, inputs, run.x);
    detail::Stream<A> stream{run.x, {}};
    Body::forward(pass.advanced({.parameters = Definition::body_offset}), stream);
    detail::norm_of_stream<Norm>(pass.run, bind_weights<Norm>(parameters + Definition::norm_offset), run.norm, stream,
                                 MatrixView<C>{}, run.normed);
  }

  static void outputs(WorkspaceType& workspace, Shape shape, const S* parameters, Index first, Index step, Index rows,
                      C* outputs) {
    const auto run = workspace.buffers(shape);
    const MatrixView<const A> normed{run.normed.row(first), rows, run.normed.columns, step * run.normed.stride};
    Definition::leave(
        detail::ForwardPass<Backend, S, A>{
            {workspace.device_, {rows, 1}, false, {}, nullptr, run.scratch}, parameters, run.scratch},
        normed, matrix(outputs, rows, Index{Definition::output_width}));
  }

  static void loss(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                   const Input* targets, StateView<C> states) {
    body_for(workspace, shape, parameters, inputs, states, tokens(targets));
    head(workspace, shape, parameters, targets, nullptr);
  }

  static void gradient(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                       const Input* targets, C* gradients, Into into, StateView<C> states, StateView<C> dstates) {
    if (into == Into::assign) clear_gradients(workspace.device_, gradients);
    body_for(workspace, shape, parameters, inputs, states, tokens(targets));
    head(workspace, shape, parameters, targets, gradients);
    body_backward_for(workspace, shape, parameters, inputs, gradients, nullptr, dstates, tokens(targets),
                      into == Into::assign);
  }

  /// All but those that a layer's backward pass overwrites.
  static void clear_gradients(Backend& device, C* gradients) {
    Index first = 0;
    const auto clear_to = [&](Index end) { clear(device, gradients + first, end - first); };
    Definition::visit_parameters([&](const Parameter& parameter) {
      if (parameter.gradient_start != GradientStart::overwrite) return;
      clear_to(parameter.offset);
      first = parameter.offset + parameter.size();
    });
    clear_to(Definition::parameters);
  }

  static const Token* tokens(const Input* targets) {
    if constexpr (TokenDefinition<Definition>) {
      return targets;
    } else {
      return nullptr;
    }
  }

  /// The loss behind body(), and with `gradients` its gradient by the final norm's output.
  static void head(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* targets, C* gradients) {
    auto& device = workspace.device_;
    const auto run = workspace.buffers(shape);
    double* const totals = workspace.report_.data() + Body::report_size;
    if constexpr (TokenDefinition<Definition>) {
      Definition::loss(device, parameters, MatrixView<const A>(run.normed), targets,
                       gradients == nullptr ? MatrixView<A>{} : run.dnormed, gradients, totals, run.scratch);
    } else {
      const Index rows = shape.tokens(), columns = Definition::output_width, numbers = rows * columns;
      Arena scratch = run.scratch;
      const auto predicted = matrix(scratch.take<C>(numbers), rows, columns);
      outputs(workspace, shape, parameters, 0, 1, rows, predicted.data);
      squared_error(device, predicted, matrix(targets, rows, columns),
                    1.0 / static_cast<double>(std::max<Index>(numbers, 1)),
                    gradients == nullptr ? MatrixView<C>{} : predicted, totals);
      fill(device, static_cast<double>(numbers), matrix(totals + 1, 1, 1));
      if (gradients != nullptr) outputs_backward(workspace, shape, parameters, 0, rows, predicted.data, gradients);
    }
  }

  static void outputs_backward(WorkspaceType& workspace, Shape shape, const S* parameters, Index first, Index rows,
                               const C* doutputs, C* gradients) {
    const auto run = workspace.buffers(shape);
    Definition::leave_backward(backward_pass(workspace, shape, parameters, gradients, {}),
                               MatrixView<const A>(run.normed.row_block(first, rows)),
                               matrix(doutputs, rows, Index{Definition::output_width}),
                               run.dnormed.row_block(first, rows));
  }

  static void body_backward(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                            C* gradients, C* dinputs, StateView<C> dstates) {
    body_backward_for(workspace, shape, parameters, inputs, gradients, dinputs, dstates, nullptr, false);
  }

  static void body_backward_for(WorkspaceType& workspace, Shape shape, const S* parameters, const Input* inputs,
                                C* gradients, C* dinputs, StateView<C> dstates, const Token* targets, bool begins) {
    const auto run = workspace.buffers(shape);
    auto pass = backward_pass(workspace, shape, parameters, gradients, dstates);
    pass.run.targets = targets;
    pass.run.begins = begins;
    fill(pass.run.device, C(0), run.dx);
    Norm::backward(pass.run, bind_weights<Norm>(parameters + Definition::norm_offset),
                   bind_weights<Norm>(gradients + Definition::norm_offset), run.norm, MatrixView<const C>(run.x),
                   MatrixView<const A>(run.dnormed), run.dx);
    detail::StreamGradient<A> stream{run.dx, {}};
    Body::backward(pass.advanced({.parameters = Definition::body_offset}), stream);
    Definition::enter_backward(pass, inputs, MatrixView<const C>(run.dx), dinputs);
  }

  static detail::BackwardPass<Backend, S, A> backward_pass(WorkspaceType& workspace, Shape shape, const S* parameters,
                                                           C* gradients, StateView<C> dstates) {
    const auto run = workspace.buffers(shape);
    return {{workspace.device_, shape, Definition::auxiliary_weight, dstates, workspace.report_.data(), run.scratch},
            parameters,
            gradients,
            run.body_tape};
  }

  static void update(Backend& device, const Update& update, double* squares) {
    sum_of_squares(device, static_cast<const C*>(update.gradient), update.count, squares);
    adamw(device, update);
  }

  static void clear(Backend& device, C* values, Index count) {
    if (count > 0) fill(device, C(0), matrix(values, 1, count));
  }

  static void scale_values(Backend& device, C factor, C* values, Index count) {
    scale(device, factor, matrix(values, 1, count));
  }
};

template <class Definition, StorageScalar S, class Backend>
const Passes<Definition, S, Backend>& PassesOf<Definition, S, Backend>::get() {
  static constexpr auto table = PassesDefinition<Definition, S, Backend>::table();
  return table;
}

}  // namespace moe_mamba
