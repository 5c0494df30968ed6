#pragma once

#include <algorithm>

#include "moe_mamba/model/pass_buffers.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/stage.hpp"
#include "moe_mamba/ops/elementwise.hpp"

namespace moe_mamba::inline v0_2 {

/// The passes of a model in terms of operations, which are found through the device's namespace.
template <class Definition, StorageScalar S, class Backend>
class PassesDefinition {
  static constexpr detail::WholeModel<Definition> checked{};
  using Table = Passes<Definition, S, Backend>;
  using Call = typename Table::Call;
  using C = typename Table::C;
  using A = activation_t<S, Backend>;
  using Update = typename Table::Update;
  using Body = typename Definition::Body;
  using Norm = typename Definition::Norm;
  using Buffers = PassBuffers<Definition, S, Backend>;

 public:
  static constexpr Table table() {
    Table table;
    table.workspace_bytes = workspace_bytes;
    table.thread_scratch_bytes = thread_scratch_bytes;
    table.body = body;
    table.outputs = outputs;
    table.loss = loss;
    table.outputs_backward = outputs_backward;
    table.body_backward = body_backward;
    table.clear_gradients = clear_gradients;
    table.sum_of_squares = [](Backend& device, const C* values, Index count, double* sum) {
      sum_of_squares(device, values, count, sum);
    };
    table.update = [](Backend& device, const Update& update) { adamw(device, update); };
    table.update_selection_biases = [](Backend& device, const SelectionBiasUpdate<S>& update) {
      update_selection_biases(device, update);
    };
    table.sum_reports = sum_reports;
    table.clear = clear;
    table.scale = [](Backend& device, C factor, C* values, Index count) {
      scale(device, factor, matrix(values, 1, count));
    };
    if constexpr (!Backend::Memory::on_host) {
      table.sample = [](Backend& device, const SampleTokens<C>& tokens) { sample(device, tokens); };
      table.sample_scratch = [](Backend& device, Index rows, Index vocabulary) {
        return sample_scratch<C>(device, rows, vocabulary);
      };
    }
    return table;
  }

 private:
  static std::size_t workspace_bytes(Backend& device, Shape largest, bool training) {
    return Buffers::bytes(device, largest, training) + scratch_bytes(device, largest, training) +
           thread_scratch_bytes(device, largest, training);
  }

  static std::size_t thread_scratch_bytes(Backend& device, Shape largest, bool training) {
    if constexpr (HasThreadScratch<Backend>) {
      const std::size_t bytes = std::max({thread_scratch<Norm, A>(device, largest, training),
                                          Body::template thread_scratch<A>(device, largest, training),
                                          Definition::template thread_scratch<A>(device, largest, training)});
      return static_cast<std::size_t>(device.threads()) *
             ((bytes + Arena::alignment - 1) / Arena::alignment * Arena::alignment);
    } else {
      return 0;
    }
  }

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

  static Buffers buffers(const Call& call) { return Buffers(call.memory, call.device, call.shape, call.training); }

  /// Lends the workspace's scratch memory to the device's threads for the lifetime of the returned object.
  static auto lend_scratch(const Call& call) {
    if constexpr (HasThreadScratch<Backend>) {
      const auto threads = static_cast<std::size_t>(call.device.threads());
      return typename Backend::ScratchLoan(call.device, {call.thread_scratch, call.thread_scratch_bytes / threads});
    } else {
      return 0;
    }
  }

  /// The targets that determine which tokens are counted in auxiliary losses; null: all.
  static const Token* token_targets(const Call& call) {
    if constexpr (TokenDefinition<Definition>) {
      return call.targets;
    } else {
      return nullptr;
    }
  }

  static void body(const Call& call) {
    const Buffers run = buffers(call);
    [[maybe_unused]] const auto loan = lend_scratch(call);
    const detail::ForwardPass<Backend, S, A> pass{
        {call.device, call.shape, call.training, call.states, run.report, run.scratch, token_targets(call)},
        call.parameters,
        run.tape};
    Definition::enter(pass, call.inputs, run.x);
    detail::Stream<A> stream{run.x, {}};
    Body::forward(pass.advanced({.parameters = Definition::body_offset}), stream);
    detail::norm_of_stream<Norm>(pass.run, bind_weights<Norm>(call.parameters + Definition::norm_offset), run.norm,
                                 stream, MatrixView<C>{}, run.normed);
  }

  static void outputs(const Call& call, OutputRows rows, C* outputs) {
    const Buffers run = buffers(call);
    [[maybe_unused]] const auto loan = lend_scratch(call);
    const MatrixView<const A> normed{run.normed.row(rows.first), rows.count, run.normed.columns,
                                     rows.step * run.normed.stride};
    Definition::leave(
        detail::ForwardPass<Backend, S, A>{
            {call.device, {rows.count, 1}, false, {}, nullptr, run.scratch}, call.parameters, run.scratch},
        normed, matrix(outputs, rows.count, Index{Definition::output_width}));
  }

  static void loss(const Call& call) {
    const Buffers run = buffers(call);
    [[maybe_unused]] const auto loan = lend_scratch(call);
    double* const totals = run.report + Body::report_size;
    if constexpr (TokenDefinition<Definition>) {
      Definition::loss(call.device, call.parameters, MatrixView<const A>(run.normed), call.targets, call.normaliser,
                       call.gradients == nullptr ? MatrixView<A>{} : run.dnormed, call.gradients, totals, run.scratch);
    } else {
      const Index rows = call.shape.tokens(), columns = Definition::output_width, numbers = rows * columns;
      const Index normaliser = call.normaliser > 0 ? call.normaliser : std::max<Index>(numbers, 1);
      Arena scratch = run.scratch;
      const auto predicted = matrix(scratch.take<C>(numbers), rows, columns);
      outputs(call, {0, 1, rows}, predicted.data);
      squared_error(call.device, predicted, matrix(call.targets, rows, columns), 1.0 / static_cast<double>(normaliser),
                    call.gradients == nullptr ? MatrixView<C>{} : predicted, totals);
      fill(call.device, static_cast<double>(numbers), matrix(totals + 1, 1, 1));
      if (call.gradients != nullptr) outputs_backward(call, {0, 1, rows}, predicted.data);
    }
  }

  static void outputs_backward(const Call& call, OutputRows rows, const C* doutputs) {
    const Buffers run = buffers(call);
    [[maybe_unused]] const auto loan = lend_scratch(call);
    Definition::leave_backward(
        backward_pass(call, run), MatrixView<const A>(run.normed.row_block(rows.first, rows.count)),
        matrix(doutputs, rows.count, Index{Definition::output_width}), run.dnormed.row_block(rows.first, rows.count));
  }

  static void body_backward(const Call& call) {
    const Buffers run = buffers(call);
    [[maybe_unused]] const auto loan = lend_scratch(call);
    const auto pass = backward_pass(call, run);
    fill(call.device, C(0), run.dx);
    Norm::backward(pass.run, bind_weights<Norm>(call.parameters + Definition::norm_offset),
                   bind_weights<Norm>(call.gradients + Definition::norm_offset), run.norm, MatrixView<const C>(run.x),
                   MatrixView<const A>(run.dnormed), run.dx);
    call.ready(Definition::norm_offset, Definition::parameters);
    detail::StreamGradient<A> stream{run.dx, {}};
    Body::backward(pass.advanced({.parameters = Definition::body_offset}), stream);
    Definition::enter_backward(pass, call.inputs, MatrixView<const C>(run.dx), call.dinputs);
    call.ready(0, Definition::body_offset);
  }

  static detail::BackwardPass<Backend, S, A> backward_pass(const Call& call, const Buffers& run) {
    return {{call.device, call.shape, Definition::auxiliary_weight, call.dstates, run.report, run.scratch,
             token_targets(call), call.begins},
            call.parameters,
            call.gradients,
            run.tape,
            call.ready};
  }

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

  static void sum_reports(Backend& device, const double* report, double* sum, Into into) {
    const auto to = matrix(sum, 1, Index{Body::report_size});
    if (report == nullptr) {
      fill(device, 0.0, to);
    } else if (into == Into::assign) {
      copy(device, matrix(report, 1, to.columns), to);
    } else {
      add(device, matrix(report, 1, to.columns), to);
    }
  }

  static void clear(Backend& device, C* values, Index count) {
    if (count > 0) fill(device, C(0), matrix(values, 1, count));
  }
};

template <class Definition, StorageScalar S, class Backend>
const Passes<Definition, S, Backend>& PassesOf<Definition, S, Backend>::get() {
  static constexpr auto table = PassesDefinition<Definition, S, Backend>::table();
  return table;
}

}  // namespace moe_mamba::inline v0_2
