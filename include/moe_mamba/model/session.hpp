#pragma once

#include <algorithm>
#include <span>

#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/runtime/array.hpp"

namespace moe_mamba::inline v0_2 {

/// A batch, in memory that the backend can read.
template <class Definition, StorageScalar S>
struct SessionBatch {
  Shape shape;
  const InputOf<Definition, S>* inputs;             ///< (T) tokens or (T, I)
  const InputOf<Definition, S>* targets = nullptr;  ///< (T) tokens or masked_target, or (T, O); null: without a loss
  StateView<compute_t<S>> states = {};              ///< running states, read and updated; null: none
  Index normaliser = 0;  ///< the number of targets that a loss's gradient is the mean over; 0: the batch's own
};

/// Calls of a model's passes on a workspace. While a session exists, no other call may use the workspace or its device.
///
/// Models, trainers and decoders check their arguments and open a session for each call. A program that does work
/// between passes, such as a reduction over ranks, opens a session itself. A session does not check or allocate, and
/// waits only to copy to the host: `data` that is not a std::span is in the backend's memory and must stay valid until
/// the device has finished.
template <class Definition, StorageScalar S, class Backend>
class Session {
 public:
  using C = compute_t<S>;
  using Memory = typename Backend::Memory;
  using Input = InputOf<Definition, S>;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using Batch = SessionBatch<Definition, S>;
  static constexpr bool on_host = Memory::on_host;

  /// Throws std::logic_error if another session is open on the workspace, or another call is running on its device.
  Session(WorkspaceType& workspace, const S* parameters)
      : workspace_(workspace),
        parameters_(parameters),
        on_workspace_(workspace.in_use(), "workspace"),
        on_device_(workspace.device().in_use(), "device") {}
  /// During a call that the caller has begun on the device.
  Session(WorkspaceType& workspace, const S* parameters, const ExclusiveCall&)
      : workspace_(workspace),
        parameters_(parameters),
        on_workspace_(workspace.in_use(), "workspace"),
        on_device_(nullptr, "device") {}

  /// The host's inputs and targets in memory that the backend can read: copied, unless the host reads them only once.
  const Input* stage_inputs(std::span<const Input> inputs, Shape shape) {
    if (on_host && workspace_.purpose() == Purpose::inference) return inputs.data();
    return stage(inputs, workspace_.buffers(shape).inputs);
  }
  const Input* stage_targets(std::span<const Input> targets, Shape shape) {
    if (on_host) return targets.data();
    return stage(targets, workspace_.buffers(shape).targets);
  }
  const Input* stage_inputs(DeviceSpan<const Input> inputs, Shape) { return inputs.data(); }
  const Input* stage_targets(DeviceSpan<const Input> targets, Shape) { return targets.data(); }

  /// Everything but the head; outputs() then computes rows of outputs. Recorded on a training workspace.
  void body(const Batch& batch) {
    workspace_.invalidate();
    passes().body(call(batch));
    if (workspace_.purpose() == Purpose::training) workspace_.record({batch.shape, batch.inputs});
  }

  /// Outputs of some rows of the batch of the last body(), written to the backend's memory or to the host's.
  void outputs(Shape shape, OutputRows rows, C* to) { passes().outputs(call(shape), rows, to); }
  void outputs(Shape shape, OutputRows rows, DeviceSpan<C> to) { outputs(shape, rows, to.data()); }
  void outputs(Shape shape, OutputRows rows, std::span<C> to) {
    if constexpr (on_host) {
      outputs(shape, rows, to.data());
    } else {
      C* const staging = workspace_.buffers(shape).outputs;
      const Index most = WorkspaceType::Buffers::outputs_at_once(shape), width = Definition::output_width;
      for (Index row = 0; row < rows.count; row += most) {
        const Index count = std::min(most, rows.count - row);
        outputs(shape, {rows.first + row * rows.step, rows.step, count}, staging);
        device().download(to.data() + row * width, staging, bytes(count * width));
      }
    }
  }

  /// Computes the losses of a batch, without gradients, for the workspace's report.
  void loss(const Batch& batch) {
    workspace_.invalidate();
    passes().body(call(batch));
    passes().loss(call(batch));
  }

  /// Computes the losses, as loss() does, and the gradients w.r.t. the head's parameters and the final norm's output,
  /// which are added to `gradients`, or assigned to begin a sum over batches. backward() continues from there; in
  /// between, the sums of the report may be added up over other batches. `ready` is called as gradients are completed.
  void forward(const Batch& batch, C* gradients, Into into) {
    workspace_.invalidate();
    if (into == Into::assign) passes().clear_gradients(device(), gradients);
    auto pass = call(batch);
    passes().body(pass);
    pass.gradients = gradients;
    passes().loss(pass);
  }
  void backward(const Batch& batch, C* gradients, Into into, StateView<C> dstates = {},
                const GradientReady& ready = {}) {
    auto pass = call(batch);
    pass.ready = ready;
    pass.gradients = gradients;
    pass.dstates = dstates;
    pass.begins = into == Into::assign;
    passes().body_backward(pass);
  }

  /// From the gradients w.r.t. all outputs of the recorded forward pass, computes those w.r.t. the head's parameters
  /// and the final norm's output.
  void outputs_backward(DeviceSpan<const C> doutputs, C* gradients) {
    const Shape shape = workspace_.recorded()->shape;
    passes().outputs_backward(gradient_call(shape, gradients), {0, 1, shape.tokens()}, doutputs.data());
  }
  void outputs_backward(std::span<const C> doutputs, C* gradients) {
    const Shape shape = workspace_.recorded()->shape;
    if constexpr (on_host) {
      passes().outputs_backward(gradient_call(shape, gradients), {0, 1, shape.tokens()}, doutputs.data());
    } else {
      C* const staging = workspace_.buffers(shape).outputs;
      const Index most = WorkspaceType::Buffers::outputs_at_once(shape), width = Definition::output_width;
      for (Index first = 0; first < shape.tokens(); first += most) {
        const Index rows = std::min(most, shape.tokens() - first);
        device().upload(staging, doutputs.data() + first * width, bytes(rows * width));
        passes().outputs_backward(gradient_call(shape, gradients), {first, 1, rows}, staging);
      }
    }
  }

  /// The rest of the backward pass, down to the inputs; consumes the recorded forward pass. `dinputs` may be empty.
  void body_backward(C* gradients, DeviceSpan<C> dinputs, StateView<C> dstates) {
    body_backward_to(gradients, dinputs.data(), dstates);
  }
  void body_backward(C* gradients, std::span<C> dinputs, StateView<C> dstates) {
    C* to = dinputs.data();
    // The copy of the inputs is no longer needed when their gradient is computed.
    if constexpr (std::is_same_v<Input, C> && !on_host) {
      if (!dinputs.empty()) to = workspace_.buffers(workspace_.recorded()->shape).inputs;
    }
    body_backward_to(gradients, to, dstates);
    if constexpr (!on_host) {
      if (!dinputs.empty()) device().download(dinputs.data(), to, dinputs.size_bytes());
      device().synchronize();
    }
  }

  Backend& device() const { return workspace_.device(); }
  WorkspaceType& workspace() const { return workspace_; }

 private:
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }
  static constexpr std::size_t bytes(Index count) { return static_cast<std::size_t>(count) * sizeof(C); }

  PassCall<Definition, S, Backend> call(Shape shape) const { return workspace_.call(shape, parameters_); }
  PassCall<Definition, S, Backend> call(const Batch& batch) const {
    auto pass = call(batch.shape);
    pass.inputs = batch.inputs;
    pass.targets = batch.targets;
    pass.normaliser = batch.normaliser;
    pass.states = batch.states;
    return pass;
  }
  PassCall<Definition, S, Backend> gradient_call(Shape shape, C* gradients) const {
    auto pass = call(shape);
    pass.gradients = gradients;
    return pass;
  }

  void body_backward_to(C* gradients, C* dinputs, StateView<C> dstates) {
    auto pass = gradient_call(workspace_.recorded()->shape, gradients);
    pass.inputs = workspace_.recorded()->inputs;
    pass.dinputs = dinputs;
    pass.dstates = dstates;
    passes().body_backward(pass);
    workspace_.invalidate();
  }

  const Input* stage(std::span<const Input> values, Input* to) {
    if constexpr (on_host) {
      std::copy(values.begin(), values.end(), to);
    } else if (!values.empty()) {
      device().upload(to, values.data(), values.size_bytes());
    }
    return to;
  }

  WorkspaceType& workspace_;
  const S* parameters_;
  ExclusiveCall on_workspace_, on_device_;
};

}  // namespace moe_mamba::inline v0_2
