#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/nearest_names.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/batch_checks.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/initialise.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/session.hpp"
#include "moe_mamba/model/states.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// Tag: construct without initialising the parameters.
struct Uninitialised {};

/// The parameters of a definition, stored as S, and the passes of the model.
///
/// Inputs are token ids of a LanguageModel, (B, L), or the numbers of a SequenceModel, (B, L, Inputs). Outputs are
/// logits, (B, L, Vocabulary), or (B, L, Outputs). B and L may be 0. With Shape::packed(lengths), sequences of
/// different lengths are stored end to end; each starts from zero or from its own running state, and its results are
/// the same as in a separate batch. Given running states are read and updated; without states, sequences start from
/// zero and their final states are dropped. Invalid arguments throw before anything has changed: std::invalid_argument,
/// or std::out_of_range for a token id. With valid ones no call allocates, locks or throws. Calls are const: several
/// threads may use one model at a time, each with its own workspace and device; a call on a workspace or device that
/// another call is using throws std::logic_error.
///
/// On a device other than the host, parameters, states and gradients are in its memory. Calls with inputs and outputs
/// in the host's memory copy them and return when they are done. Calls with DeviceSpans queue their work in the
/// device's stream and return immediately: their arguments must stay valid until it is done (for a recorded forward
/// pass, until backward() is), and token ids, which the host cannot check, must be valid.
template <class Definition, class S = float, class Backend = Cpu>
class Model {
 public:
  using Storage = S;
  using Compute = compute_t<S>;
  using Memory = typename Backend::Memory;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using StatesType = States<Definition, S, Memory>;
  using Input = InputOf<Definition, S>;
  static constexpr bool takes_tokens = TokenDefinition<Definition>;
  static constexpr bool on_host = Memory::on_host;

  /// Owns its parameters, which are uninitialised, for example because they will be read from a file.
  explicit Model(Uninitialised)
      : memory_(static_cast<std::size_t>(Definition::parameters) * sizeof(S)),
        data_(reinterpret_cast<S*>(memory_.data())) {}

  /// Owns its parameters, initialised from the seed, with the same values on every backend.
  explicit Model(Seed seed) : Model(Uninitialised{}) {
    if constexpr (on_host) {
      initialise<Definition>(seed, data_);
    } else {
      std::vector<S> values(static_cast<std::size_t>(Definition::parameters));
      initialise<Definition>(seed, values.data());
      write(values);
    }
  }

  /// Borrows the caller's array of Definition::parameters elements with its values; it must outlive the model.
  explicit Model(SpanOf<S, Memory> parameters) : data_(parameters.data()) {
    Checks::parameters("parameters.size()", parameters.size());
  }

  /// A moved-from model has no parameters: it may be assigned to and destroyed; every other call on it throws
  /// std::logic_error. Trainers, decoders and scorers still refer to the object that they were constructed with, and
  /// throw too.
  Model(Model&& other) noexcept : memory_(std::move(other.memory_)), data_(std::exchange(other.data_, nullptr)) {}
  Model& operator=(Model&& other) noexcept {
    memory_ = std::move(other.memory_);
    data_ = std::exchange(other.data_, nullptr);
    return *this;
  }

  /// All parameters, in the layout of parameter_list<Definition>().
  SpanOf<S, Memory> parameters() {
    require_parameters();
    return {data_, static_cast<std::size_t>(Definition::parameters)};
  }
  SpanOf<const S, Memory> parameters() const { return const_cast<Model*>(this)->parameters(); }

  /// Throws std::logic_error if they have been moved to another model.
  void require_parameters() const {
    if (data_ == nullptr) {
      detail::raise<OrderError>(
          "the model has no parameters, as another was move-constructed or assigned from it; allowed: calls on that "
          "one");
    }
  }

  /// Copies all parameters from or to the host, and returns when that is done. On a device, does not wait for work
  /// queued in a stream. Throws std::invalid_argument unless there are Definition::parameters values.
  void write(std::span<const S> values) {
    Checks::parameters("values.size()", values.size());
    require_parameters();
    Memory::write(data_, values.data(), values.size_bytes());
  }
  void read(std::span<S> values) const {
    Checks::parameters("values.size()", values.size());
    require_parameters();
    Memory::read(values.data(), data_, values.size_bytes());
  }

  /// A parameter by its name. Throws std::invalid_argument for an unknown name, with the most similar names in the
  /// message.
  SpanOf<S, Memory> parameter(std::string_view name) {
    SpanOf<S, Memory> found;
    bool known = false;
    Definition::visit_parameters([&](const Parameter& parameter) {
      if (parameter.name.view() != name) return;
      known = true;
      found =
          parameters().subspan(static_cast<std::size_t>(parameter.offset), static_cast<std::size_t>(parameter.size()));
    });
    require(known, "name", name, [&] {
      detail::NearestNames nearest(name);
      Definition::visit_parameters([&](const Parameter& parameter) { nearest.offer(parameter.name.view()); });
      return "a name of parameter_list<Definition>(), such as " +
             nearest.text([](const std::string& one) { return one; });
    });
    return found;
  }

  /// Outputs of every step. On a training workspace the pass is recorded for backward().
  void forward(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, std::span<Compute> outputs,
               StatesType* states = nullptr) const {
    forward_any(workspace, inputs, shape, outputs, states);
  }
  void forward(WorkspaceType& workspace, DeviceSpan<const Input> inputs, Shape shape, DeviceSpan<Compute> outputs,
               StatesType* states = nullptr) const requires(!on_host) {
    forward_any(workspace, inputs, shape, outputs, states);
  }

  /// Outputs of the last step of each sequence, (B, Vocabulary) or (B, Outputs), as for reading a prompt. The length
  /// must be 1 or more.
  void forward_last(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, std::span<Compute> outputs,
                    StatesType* states = nullptr) const {
    forward_last_any(workspace, inputs, shape, outputs, states);
  }
  void forward_last(WorkspaceType& workspace, DeviceSpan<const Input> inputs, Shape shape, DeviceSpan<Compute> outputs,
                    StatesType* states = nullptr) const requires(!on_host) {
    forward_last_any(workspace, inputs, shape, outputs, states);
  }

  /// One step of each of states.count() sequences; inputs (B) or (B, Inputs), outputs (B, Vocabulary) or (B, Outputs).
  void step(WorkspaceType& workspace, StatesType& states, std::span<const Input> inputs,
            std::span<Compute> outputs) const {
    Checks::step(workspace, states, inputs.size());
    forward_any(workspace, inputs, {states.count(), 1}, outputs, &states);
  }
  void step(WorkspaceType& workspace, StatesType& states, DeviceSpan<const Input> inputs,
            DeviceSpan<Compute> outputs) const requires(!on_host) {
    Checks::step(workspace, states, inputs.size());
    forward_any(workspace, inputs, {states.count(), 1}, outputs, &states);
  }

  /// The gradient of a loss from its gradient w.r.t. the outputs of the forward pass just recorded on this training
  /// workspace. Adds to `gradients` (laid out as the parameters), including the auxiliary losses' gradient. `dinputs`,
  /// only for a sequence model, may be empty. `dstates` is the gradient w.r.t. the final states on entry and w.r.t. the
  /// initial states on return.
  void backward(WorkspaceType& workspace, std::span<const Compute> doutputs, SpanOf<Compute, Memory> gradients,
                std::span<Compute> dinputs = {}, StatesType* dstates = nullptr) const {
    backward_any(workspace, doutputs, gradients, dinputs, dstates);
  }
  void backward(WorkspaceType& workspace, DeviceSpan<const Compute> doutputs, DeviceSpan<Compute> gradients,
                DeviceSpan<Compute> dinputs = {}, StatesType* dstates = nullptr) const requires(!on_host) {
    backward_any(workspace, doutputs, gradients, dinputs, dstates);
  }

  /// The losses of a batch with targets: token ids or masked_target, (B, L); for a sequence model numbers, (B, L,
  /// Outputs), with the mean squared error as loss. With DeviceSpans, workspace.losses() returns them once the device
  /// has finished.
  Losses loss(WorkspaceType& workspace, std::span<const Input> inputs, std::span<const Input> targets, Shape shape,
              StatesType* states = nullptr) const {
    loss_any(workspace, inputs, targets, shape, states);
    return workspace.losses();
  }
  void loss(WorkspaceType& workspace, DeviceSpan<const Input> inputs, DeviceSpan<const Input> targets, Shape shape,
            StatesType* states = nullptr) const requires(!on_host) {
    loss_any(workspace, inputs, targets, shape, states);
  }

  /// The same, and adds the gradient of the total loss to `gradients`. Needs a training workspace. `dstates` as in
  /// backward(). With a normaliser n > 0, the gradient is that of the sum of the targets' losses divided by n, for a
  /// batch that is part of a larger one with n targets; otherwise that of their mean.
  Losses gradient(WorkspaceType& workspace, std::span<const Input> inputs, std::span<const Input> targets, Shape shape,
                  SpanOf<Compute, Memory> gradients, StatesType* states = nullptr, StatesType* dstates = nullptr,
                  Index normaliser = 0) const {
    gradient_any(workspace, inputs, targets, shape, gradients, states, dstates, normaliser);
    return workspace.losses();
  }
  void gradient(WorkspaceType& workspace, DeviceSpan<const Input> inputs, DeviceSpan<const Input> targets, Shape shape,
                DeviceSpan<Compute> gradients, StatesType* states = nullptr, StatesType* dstates = nullptr,
                Index normaliser = 0) const requires(!on_host) {
    gradient_any(workspace, inputs, targets, shape, gradients, states, dstates, normaliser);
  }

 private:
  using Checks = BatchChecks<Definition, S, Backend>;
  using SessionType = Session<Definition, S, Backend>;

  /// The exclusive access that a call holds while it runs.
  struct Call {
    SessionType session;
    ExclusiveCall on_states, on_dstates;
  };
  Call open(WorkspaceType& workspace, const StatesType* states, const StatesType* dstates = nullptr) const {
    require_parameters();
    require(states == nullptr || states != dstates, "dstates", "the same object as states",
            "a different one, as both are read and written");
    return {SessionType(workspace, data_),
            ExclusiveCall(states == nullptr ? nullptr : &states->in_use(), "States object"),
            ExclusiveCall(dstates == nullptr ? nullptr : &dstates->in_use(), "States object")};
  }

  template <class Inputs, class Outputs>
  void forward_any(WorkspaceType& workspace, Inputs inputs, Shape shape, Outputs outputs, StatesType* states) const {
    Call call = open(workspace, states);
    Checks::inputs(workspace, inputs, shape, states);
    Checks::outputs(outputs.size(), shape.tokens());
    call.session.body({shape, call.session.stage_inputs(inputs, shape), nullptr, view(states)});
    call.session.outputs(shape, {0, 1, shape.tokens()}, outputs);
  }

  template <class Inputs, class Outputs>
  void forward_last_any(WorkspaceType& workspace, Inputs inputs, Shape shape, Outputs outputs,
                        StatesType* states) const {
    Call call = open(workspace, states);
    Checks::inputs(workspace, inputs, shape, states);
    Checks::last_outputs(shape, outputs.size());
    call.session.body({shape, call.session.stage_inputs(inputs, shape), nullptr, view(states)});
    workspace.invalidate();
    for_sequence_runs(shape, [&](const SequenceRun& part) {
      const Index length = part.shape.length, width = Definition::output_width;
      call.session.outputs(shape, {part.row + length - 1, length, part.shape.batch},
                           outputs.subspan(static_cast<std::size_t>(part.sequence * width),
                                           static_cast<std::size_t>(part.shape.batch * width)));
    });
  }

  template <class Outputs, class Inputs>
  void backward_any(WorkspaceType& workspace, Outputs doutputs, SpanOf<Compute, Memory> gradients, Inputs dinputs,
                    StatesType* dstates) const {
    Call call = open(workspace, nullptr, dstates);
    Checks::backward(workspace, doutputs.size(), gradients.size(), dinputs.size(), dstates);
    call.session.outputs_backward(doutputs, gradients.data());
    call.session.body_backward(gradients.data(), dinputs, view(dstates));
  }

  template <class Inputs>
  void loss_any(WorkspaceType& workspace, Inputs inputs, Inputs targets, Shape shape, StatesType* states) const {
    Call call = open(workspace, states);
    Checks::batch(workspace, inputs, targets, shape, states);
    call.session.loss(
        {shape, call.session.stage_inputs(inputs, shape), call.session.stage_targets(targets, shape), view(states)});
  }

  template <class Inputs>
  void gradient_any(WorkspaceType& workspace, Inputs inputs, Inputs targets, Shape shape,
                    SpanOf<Compute, Memory> gradients, StatesType* states, StatesType* dstates,
                    Index normaliser) const {
    Call call = open(workspace, states, dstates);
    Checks::gradients(workspace, gradients.size(), shape, dstates);
    Checks::batch(workspace, inputs, targets, shape, states);
    require(normaliser >= 0, "normaliser", normaliser, "0, for the batch's own targets, or more");
    const typename SessionType::Batch batch{shape, call.session.stage_inputs(inputs, shape),
                                            call.session.stage_targets(targets, shape), view(states), normaliser};
    call.session.forward(batch, gradients.data(), Into::add);
    call.session.backward(batch, gradients.data(), Into::add, view(dstates));
  }

  static StateView<Compute> view(StatesType* states) {
    return states == nullptr ? StateView<Compute>{} : states->view();
  }

  Memory memory_;
  S* data_ = nullptr;
};

/// Parameters of any other type do not compile, with a message that says so; the rest of the program is compiled as if
/// they were float.
template <class Definition, class S, class Backend>
requires(!StorageScalar<S>) class Model<Definition, S, Backend> : public Model<Definition, float, Backend> {
 public:
  using Model<Definition, float, Backend>::Model;

  // The last member, since clang drops those after a failed assertion.
  static_assert(
      StorageScalar<S>,
      "a Model's parameters are float, double or moe_mamba::bfloat16: Model<definition, parameters, backend>");
};

}  // namespace moe_mamba::inline v0_2
