#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/array.hpp"
#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/nearest_names.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/initialise.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/states.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"

namespace moe_mamba {

/// Asks for memory as it is.
struct Uninitialised {};

/// The parameters of a definition, stored as S, and what can be done with them.
///
/// Inputs are token ids of a LanguageModel, (B, L), or the numbers of a SequenceModel, (B, L, Inputs). Outputs are
/// logits, (B, L, Vocabulary), or (B, L, Outputs). B and L may be 0. With Shape::packed(lengths) sequences are of different lengths and lie
/// end to end: each begins anew, or from its own running state, and is as it would be alone. Running states that are passed are read and brought up to date;
/// without states, sequences begin from nothing and the final states are dropped. Bad arguments throw before anything
/// has changed: std::invalid_argument, or std::out_of_range for a token id. With good ones no call allocates, locks or
/// throws. Calls are const: several threads may use one model at a time, each with a workspace, a device and states of its
/// own; a call on a workspace, a device or states that are in the middle of another throws std::logic_error.
///
/// On a device other than the host, parameters, states and gradients are in its memory. Calls with inputs and outputs of
/// the host's copy them and return when they are done. Those with DeviceSpans put their work into the device's stream and
/// return at once: what they are given must stay until it is done (of a recorded forward pass, until backward() is), and
/// token ids, which the host cannot see, must be right.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
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

  /// Owns its parameters, which are yet to be written, as when a file is read.
  explicit Model(Uninitialised)
      : memory_(static_cast<std::size_t>(Definition::parameters) * sizeof(S)),
        data_(reinterpret_cast<S*>(memory_.data())) {}

  /// Owns its parameters, initialised from the seed: the same on every backend.
  explicit Model(Seed seed) : Model(Uninitialised{}) {
    if constexpr (on_host) {
      initialise<Definition>(seed, data_);
    } else {
      std::vector<S> values(static_cast<std::size_t>(Definition::parameters));
      initialise<Definition>(seed, values.data());
      write(values);
    }
  }

  /// Borrows the caller's array of Definition::parameters elements, which must outlive the model, as it is.
  explicit Model(SpanOf<S, Memory> parameters) : data_(parameters.data()) {
    check_count("parameters.size()", parameters.size());
  }

  /// The model moved from has no parameters left: it may be assigned to and destroyed, and every other call on it throws
  /// std::logic_error. Trainers, decoders and scorers keep to the object that they were made with, and throw as well.
  Model(Model&& other) noexcept : memory_(std::move(other.memory_)), data_(std::exchange(other.data_, nullptr)) {}
  Model& operator=(Model&& other) noexcept {
    memory_ = std::move(other.memory_);
    data_ = std::exchange(other.data_, nullptr);
    return *this;
  }

  /// All parameters, laid out as parameter_list<Definition>() says.
  SpanOf<S, Memory> parameters() {
    require_parameters();
    return {data_, static_cast<std::size_t>(Definition::parameters)};
  }
  SpanOf<const S, Memory> parameters() const { return const_cast<Model*>(this)->parameters(); }

  /// Throws std::logic_error where they have been moved to another model.
  void require_parameters() const {
    if (data_ == nullptr) {
      throw std::logic_error(
          "the model has no parameters, as another was move-constructed or assigned from it; allowed: calls on that "
          "one");
    }
  }

  /// Copies all parameters from or to the host, and returns when that is done. On a device, work that was queued in a
  /// stream is not waited for. Throws std::invalid_argument where there are not Definition::parameters of them.
  void write(std::span<const S> values) {
    check_count("values.size()", values.size());
    require_parameters();
    Memory::write(data_, values.data(), values.size_bytes());
  }
  void read(std::span<S> values) const {
    check_count("values.size()", values.size());
    require_parameters();
    Memory::read(values.data(), data_, values.size_bytes());
  }

  /// One parameter by its name. Throws std::invalid_argument for a name that is not there, and names those that are
  /// most like it.
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
    const auto use = use_of(workspace, states);
    check_call(workspace, inputs, shape, states);
    check_outputs(outputs.size(), shape.tokens());
    run_body(workspace, workspace.keep_inputs(inputs, shape), shape, states);
    write_outputs(workspace, shape, 0, 1, outputs);
  }
  void forward(WorkspaceType& workspace, DeviceSpan<const Input> inputs, Shape shape, DeviceSpan<Compute> outputs,
               StatesType* states = nullptr) const requires(!on_host) {
    const auto use = use_of(workspace, states);
    check_queued(workspace, inputs, shape, states);
    check_outputs(outputs.size(), shape.tokens());
    run_body(workspace, inputs.data(), shape, states);
    passes().outputs(workspace, shape, data_, 0, 1, shape.tokens(), outputs.data());
  }

  /// Outputs of the last step of each sequence, (B, Vocabulary) or (B, Outputs): how a prompt is read in. The length
  /// must be 1 or more.
  void forward_last(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, std::span<Compute> outputs,
                    StatesType* states = nullptr) const {
    const auto use = use_of(workspace, states);
    check_call(workspace, inputs, shape, states);
    check_last(shape, outputs.size());
    run_body(workspace, workspace.keep_inputs(inputs, shape), shape, states);
    workspace.recorded_.reset();
    for_sequence_runs(shape, [&](const SequenceRun& part) {
      const Index length = part.shape.length, width = Definition::output_width;
      write_outputs(workspace, shape, part.row + length - 1, length,
                    outputs.subspan(static_cast<std::size_t>(part.sequence * width),
                                    static_cast<std::size_t>(part.shape.batch * width)));
    });
  }
  void forward_last(WorkspaceType& workspace, DeviceSpan<const Input> inputs, Shape shape, DeviceSpan<Compute> outputs,
                    StatesType* states = nullptr) const requires(!on_host) {
    const auto use = use_of(workspace, states);
    check_queued(workspace, inputs, shape, states);
    check_last(shape, outputs.size());
    run_body(workspace, inputs.data(), shape, states);
    workspace.recorded_.reset();
    for_sequence_runs(shape, [&](const SequenceRun& part) {
      const Index length = part.shape.length;
      passes().outputs(workspace, shape, data_, part.row + length - 1, length, part.shape.batch,
                       outputs.data() + part.sequence * Definition::output_width);
    });
  }

  /// One step of each of states.count() sequences; inputs (B) or (B, Inputs), outputs (B, Vocabulary) or (B, Outputs).
  void step(WorkspaceType& workspace, StatesType& states, std::span<const Input> inputs,
            std::span<Compute> outputs) const {
    check_step(workspace, states, inputs.size());
    forward(workspace, inputs, {states.count(), 1}, outputs, &states);
  }
  void step(WorkspaceType& workspace, StatesType& states, DeviceSpan<const Input> inputs,
            DeviceSpan<Compute> outputs) const requires(!on_host) {
    check_step(workspace, states, inputs.size());
    forward(workspace, inputs, {states.count(), 1}, outputs, &states);
  }

  /// The gradient of a loss from its gradient by the outputs of the forward pass just recorded on this training
  /// workspace. Adds to `gradients` (laid out as the parameters), the auxiliary losses' share included. `dinputs`, of a
  /// sequence model, may be empty. `dstates` holds the gradient by the final states on entry and by the initial ones on
  /// return.
  void backward(WorkspaceType& workspace, std::span<const Compute> doutputs, SpanOf<Compute, Memory> gradients,
                std::span<Compute> dinputs = {}, StatesType* dstates = nullptr) const {
    const auto use = use_of(workspace, dstates);
    const Shape shape = check_backward(workspace, doutputs.size(), gradients.size(), dinputs.size(), dstates);
    const auto run = workspace.buffers(shape);
    const Index width = Definition::output_width;
    // The copy of the inputs is not needed any more when their gradient is formed.
    Compute* to = dinputs.data();
    if constexpr (!takes_tokens && !on_host) to = dinputs.empty() ? nullptr : run.inputs;
    if constexpr (on_host) {
      passes().outputs_backward(workspace, shape, data_, 0, shape.tokens(), doutputs.data(), gradients.data());
    } else {
      for (Index first = 0; first < shape.tokens(); first += WorkspaceType::outputs_at_once(shape)) {
        const Index rows = std::min(WorkspaceType::outputs_at_once(shape), shape.tokens() - first);
        workspace.device_.upload(run.outputs, doutputs.data() + first * width, bytes(rows * width));
        passes().outputs_backward(workspace, shape, data_, first, rows, run.outputs, gradients.data());
      }
    }
    passes().body_backward(workspace, shape, data_, workspace.recorded_inputs_, gradients.data(), to, view(dstates));
    workspace.recorded_.reset();
    if constexpr (!on_host) {
      if (!dinputs.empty()) workspace.device_.download(dinputs.data(), to, dinputs.size_bytes());
      workspace.device_.synchronize();
    }
  }
  void backward(WorkspaceType& workspace, DeviceSpan<const Compute> doutputs, DeviceSpan<Compute> gradients,
                DeviceSpan<Compute> dinputs = {}, StatesType* dstates = nullptr) const requires(!on_host) {
    const auto use = use_of(workspace, dstates);
    const Shape shape = check_backward(workspace, doutputs.size(), gradients.size(), dinputs.size(), dstates);
    passes().outputs_backward(workspace, shape, data_, 0, shape.tokens(), doutputs.data(), gradients.data());
    passes().body_backward(workspace, shape, data_, workspace.recorded_inputs_, gradients.data(), dinputs.data(),
                           view(dstates));
    workspace.recorded_.reset();
  }

  /// Throws what loss() and gradient() would throw for these arguments on any workspace, however large.
  static void check_batch(std::span<const Input> inputs, std::span<const Input> targets, Shape shape) {
    WorkspaceType::check_shape(shape);
    check_inputs(inputs.size(), shape);
    check_targets(targets.size(), shape);
    if constexpr (takes_tokens) {
      check_tokens("inputs", inputs, 0);
      check_tokens("targets", targets, masked_target);
    }
  }

  /// Throws what loss() and gradient() would throw for these arguments.
  static void check_batch(const WorkspaceType& workspace, std::span<const Input> inputs, std::span<const Input> targets,
                          Shape shape, const StatesType* states = nullptr) {
    workspace.check(shape);
    check_batch(inputs, targets, shape);
    check_states("states.count()", states, shape);
  }

  /// The losses of a batch against targets: token ids, (B, L), or masked_target for those that do not count; of a
  /// sequence model numbers, (B, L, Outputs), and the loss is the mean of the squared errors. With DeviceSpans,
  /// workspace.losses() tells them.
  Losses loss(WorkspaceType& workspace, std::span<const Input> inputs, std::span<const Input> targets, Shape shape,
              StatesType* states = nullptr) const {
    const auto use = use_of(workspace, states);
    check_batch(workspace, inputs, targets, shape, states);
    workspace.begin();
    passes().loss(workspace, shape, data_, workspace.keep_inputs(inputs, shape), workspace.keep_targets(targets, shape),
                  view(states));
    return workspace.losses();
  }
  void loss(WorkspaceType& workspace, DeviceSpan<const Input> inputs, DeviceSpan<const Input> targets, Shape shape,
            StatesType* states = nullptr) const requires(!on_host) {
    const auto use = use_of(workspace, states);
    check_queued(workspace, inputs, shape, states);
    check_targets(targets.size(), shape);
    workspace.begin();
    passes().loss(workspace, shape, data_, inputs.data(), targets.data(), view(states));
  }

  /// The same, and adds the gradient of the total loss to `gradients`. On a training workspace only. `dstates` as in
  /// backward().
  Losses gradient(WorkspaceType& workspace, std::span<const Input> inputs, std::span<const Input> targets, Shape shape,
                  SpanOf<Compute, Memory> gradients, StatesType* states = nullptr,
                  StatesType* dstates = nullptr) const {
    const auto use = use_of(workspace, states, dstates);
    workspace.check_training();
    check_gradients(gradients.size(), shape, dstates);
    check_batch(workspace, inputs, targets, shape, states);
    workspace.begin();
    passes().gradient(workspace, shape, data_, workspace.keep_inputs(inputs, shape),
                      workspace.keep_targets(targets, shape), gradients.data(), Into::add, view(states), view(dstates));
    return workspace.losses();
  }
  void gradient(WorkspaceType& workspace, DeviceSpan<const Input> inputs, DeviceSpan<const Input> targets, Shape shape,
                DeviceSpan<Compute> gradients, StatesType* states = nullptr, StatesType* dstates = nullptr) const
      requires(!on_host) {
    const auto use = use_of(workspace, states, dstates);
    workspace.check_training();
    check_gradients(gradients.size(), shape, dstates);
    check_queued(workspace, inputs, shape, states);
    check_targets(targets.size(), shape);
    workspace.begin();
    passes().gradient(workspace, shape, data_, inputs.data(), targets.data(), gradients.data(), Into::add, view(states),
                      view(dstates));
  }

 private:
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }

  static void check_count(const char* name, std::size_t size) {
    require(static_cast<Index>(size) == Definition::parameters, name, size,
            [] { return std::to_string(Definition::parameters) + ", the definition's count"; });
  }

  static void check_call(const WorkspaceType& workspace, std::span<const Input> inputs, Shape shape,
                         const StatesType* states) {
    workspace.check(shape);
    check_inputs(inputs.size(), shape);
    if constexpr (takes_tokens) check_tokens("inputs", inputs, 0);
    check_states("states.count()", states, shape);
  }
  static void check_queued(const WorkspaceType& workspace, DeviceSpan<const Input> inputs, Shape shape,
                           const StatesType* states) {
    workspace.check(shape);
    check_inputs(inputs.size(), shape);
    check_states("states.count()", states, shape);
  }

  /// A step has no shape but that of its states.
  static void check_step(const WorkspaceType& workspace, const StatesType& states, std::size_t inputs) {
    require(states.count() <= workspace.largest().batch, "states.count()", states.count(),
            [&] { return "0 to " + std::to_string(workspace.largest().batch) + ", the workspace's largest batch"; });
    require(static_cast<Index>(inputs) == states.count() * Definition::input_width, "inputs.size()", inputs, [&] {
      return std::to_string(states.count() * Definition::input_width) + ", " + std::to_string(Definition::input_width) +
             " for each of the " + std::to_string(states.count()) + " states";
    });
  }

  static void check_inputs(std::size_t size, Shape shape) {
    require(static_cast<Index>(size) == shape.tokens() * Definition::input_width, "inputs.size()", size,
            [&] { return std::to_string(shape.tokens() * Definition::input_width) + ", as the shape says"; });
  }

  static void check_targets(std::size_t size, Shape shape) {
    const Index wanted = shape.tokens() * (takes_tokens ? 1 : Definition::output_width);
    require(static_cast<Index>(size) == wanted, "targets.size()", size,
            [&] { return std::to_string(wanted) + ", as the shape says"; });
  }

  static void check_states(const char* name, const StatesType* states, Shape shape) {
    require(states == nullptr || states->count() == shape.batch, name, states == nullptr ? 0 : states->count(),
            [&] { return std::to_string(shape.batch) + ", the batch"; });
  }

  static void check_tokens(const char* name, std::span<const Token> tokens, Token lowest) {
    require_tokens(name, tokens, lowest, Definition::vocabulary);
  }

  static void check_outputs(std::size_t size, Index rows) {
    require(static_cast<Index>(size) == rows * Definition::output_width, "outputs.size()", size,
            [&] { return std::to_string(rows * Definition::output_width) + ", rows times output width"; });
  }

  static void check_last(Shape shape, std::size_t size) {
    for (Index b = 0; b < (shape.lengths == nullptr ? std::min<Index>(1, shape.batch) : shape.batch); ++b) {
      require(shape.length_of(b) >= 1, "shape.length", shape.length_of(b),
              "1 or more, for the outputs of the last step");
    }
    check_outputs(size, shape.batch);
  }

  static void check_gradients(std::size_t size, Shape shape, const StatesType* dstates) {
    check_count("gradients.size()", size);
    check_states("dstates.count()", dstates, shape);
  }

  /// The shape of the recorded forward pass.
  static Shape check_backward(const WorkspaceType& workspace, std::size_t doutputs, std::size_t gradients,
                              std::size_t dinputs, const StatesType* dstates) {
    workspace.check_training();
    require(workspace.recorded_.has_value(), "workspace", "without a recorded forward pass",
            "one on which forward() was called last");
    const Shape shape = *workspace.recorded_;
    check_outputs(doutputs, shape.tokens());
    check_gradients(gradients, shape, dstates);
    if (dinputs == 0) return shape;
    require(!takes_tokens, "dinputs", "given", "none: tokens have no gradient");
    const Index wanted = shape.tokens() * Definition::input_width;
    require(static_cast<Index>(dinputs) == wanted, "dinputs.size()", dinputs,
            [&] { return std::to_string(wanted) + ", batch times length times inputs"; });
    return shape;
  }

  static StateView<Compute> view(StatesType* states) {
    return states == nullptr ? StateView<Compute>{} : states->view();
  }
  static constexpr std::size_t bytes(Index count) { return static_cast<std::size_t>(count) * sizeof(Compute); }

  /// What a call holds while it runs.
  struct Use {
    Use(const WorkspaceType& workspace, const StatesType* states, const StatesType* dstates)
        : on_workspace(workspace.use()),
          on_states(states == nullptr ? nullptr : &states->in_use(), "States object"),
          on_dstates(dstates == nullptr ? nullptr : &dstates->in_use(), "States object") {}
    typename WorkspaceType::Use on_workspace;
    ExclusiveCall on_states, on_dstates;
  };
  Use use_of(const WorkspaceType& workspace, const StatesType* states, const StatesType* dstates = nullptr) const {
    require_parameters();
    require(states == nullptr || states != dstates, "dstates", "the object that states is",
            "another one, as both are read and written");
    return Use(workspace, states, dstates);
  }

  void run_body(WorkspaceType& workspace, const Input* inputs, Shape shape, StatesType* states) const {
    workspace.begin();
    passes().body(workspace, shape, data_, inputs, view(states));
    if (workspace.purpose_ == Purpose::training) {
      workspace.recorded_ = shape;
      workspace.recorded_inputs_ = inputs;
    }
  }

  /// Outputs of the rows first, first + step … to the host.
  void write_outputs(WorkspaceType& workspace, Shape shape, Index first, Index step, std::span<Compute> outputs) const {
    const Index width = Definition::output_width, rows = static_cast<Index>(outputs.size()) / width;
    if constexpr (on_host) {
      passes().outputs(workspace, shape, data_, first, step, rows, outputs.data());
    } else {
      Compute* const staging = workspace.buffers(shape).outputs;
      const Index most = WorkspaceType::outputs_at_once(shape);
      for (Index row = 0; row < rows; row += most) {
        const Index count = std::min(most, rows - row);
        passes().outputs(workspace, shape, data_, first + row * step, step, count, staging);
        workspace.device_.download(outputs.data() + row * width, staging, bytes(count * width));
      }
    }
  }

  Memory memory_;
  S* data_ = nullptr;
};

}  // namespace moe_mamba
