#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/cost.hpp"
#include "moe_mamba/model/initialise.hpp"
#include "moe_mamba/model/states.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/ops/cross_entropy.hpp"
#include "moe_mamba/ops/elementwise.hpp"

namespace moe_mamba {

/// Asks for memory as it is.
struct Uninitialised {};

/// The losses of a batch.
struct Losses {
  double prediction = 0;  ///< mean over the targets: cross-entropy in nats, or squared error of a sequence model
  double auxiliary = 0;   ///< of the routers, as they enter the total
  Index targets = 0;      ///< unmasked tokens; numbers, of a sequence model

  double total() const { return prediction + auxiliary; }
};

/// The parameters of a definition, stored as S, and what can be done with them.
///
/// Inputs are token ids of a LanguageModel, (B, L), or the numbers of a SequenceModel, (B, L, Inputs). Outputs are
/// logits, (B, L, Vocabulary), or (B, L, Outputs). Running states that are passed are read and brought up to date;
/// without states, sequences begin from nothing and the final states are dropped. Bad arguments throw before anything
/// has changed: std::invalid_argument, or std::out_of_range for a token id. With good ones no call allocates, locks or
/// throws. Calls are const: several threads may use one model at a time, each with a workspace and a device of its own.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
class Model {
 public:
  using Storage = S;
  using Compute = compute_t<S>;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using StatesType = States<Definition, S>;
  using Input = typename WorkspaceType::Input;
  static constexpr bool takes_tokens = WorkspaceType::takes_tokens;

  /// Owns its parameters, which are yet to be written, as when a file is read.
  explicit Model(Uninitialised)
      : memory_(static_cast<std::size_t>(Definition::parameters) * sizeof(S)),
        data_(reinterpret_cast<S*>(memory_.data())) {}

  /// Owns its parameters, initialised from the seed.
  explicit Model(Seed seed) : Model(Uninitialised{}) { initialise<Definition>(seed, data_); }

  /// Borrows the caller's array of Definition::parameters elements, which must outlive the model, as it is.
  explicit Model(std::span<S> parameters) : data_(parameters.data()) {
    require(static_cast<Index>(parameters.size()) == Definition::parameters, "parameters.size()", parameters.size(),
            [] { return std::to_string(Definition::parameters) + ", the definition's count"; });
  }

  /// The model moved from has no parameters left and may only be assigned to or destroyed. Trainers and decoders keep to
  /// the object that they were made with.
  Model(Model&& other) noexcept : memory_(std::move(other.memory_)), data_(std::exchange(other.data_, nullptr)) {}
  Model& operator=(Model&& other) noexcept {
    memory_ = std::move(other.memory_);
    data_ = std::exchange(other.data_, nullptr);
    return *this;
  }

  /// All parameters, laid out as parameter_list<Definition>() says.
  std::span<S> parameters() { return {data_, static_cast<std::size_t>(Definition::parameters)}; }
  std::span<const S> parameters() const { return {data_, static_cast<std::size_t>(Definition::parameters)}; }

  /// One parameter by its name. Throws std::invalid_argument for a name that is not there.
  std::span<S> parameter(std::string_view name) {
    std::span<S> found;
    bool known = false;
    Definition::visit_parameters([&](const Parameter& parameter) {
      if (parameter.name.view() != name) return;
      known = true;
      found =
          parameters().subspan(static_cast<std::size_t>(parameter.offset), static_cast<std::size_t>(parameter.size()));
    });
    require(known, "name", name, "a name of parameter_list<Definition>()");
    return found;
  }

  /// Outputs of every step. On a training workspace the pass is recorded for backward().
  void forward(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, std::span<Compute> outputs,
               StatesType* states = nullptr) const {
    check_call(workspace, inputs, shape, states);
    check_outputs(outputs, shape.tokens());
    const auto run = run_body(workspace, inputs, shape, states);
    leave(workspace, run, run.normed, outputs);
  }

  /// Outputs of the last step of each sequence, (B, Vocabulary) or (B, Outputs): how a prompt is read in. The length
  /// must be 1 or more.
  void forward_last(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, std::span<Compute> outputs,
                    StatesType* states = nullptr) const {
    check_call(workspace, inputs, shape, states);
    require(shape.length >= 1, "shape.length", shape.length, "1 or more, for the outputs of the last step");
    check_outputs(outputs, shape.batch);
    const auto run = run_body(workspace, inputs, shape, states);
    workspace.recorded_ = {};
    leave(workspace, run,
          MatrixView<const Compute>{run.normed.row(shape.length - 1), shape.batch, run.normed.columns,
                                    shape.length * run.normed.stride},
          outputs);
  }

  /// One step of each of states.count() sequences; inputs (B) or (B, Inputs), outputs (B, Vocabulary) or (B, Outputs).
  void step(WorkspaceType& workspace, StatesType& states, std::span<const Input> inputs,
            std::span<Compute> outputs) const {
    forward(workspace, inputs, {states.count(), 1}, outputs, &states);
  }

  /// The gradient of a loss from its gradient by the outputs of the forward pass just recorded on this training
  /// workspace. Adds to `gradients` (laid out as the parameters), the auxiliary losses' share included. `dinputs`, of a
  /// sequence model, may be empty. `dstates` holds the gradient by the final states on entry and by the initial ones on
  /// return.
  void backward(WorkspaceType& workspace, std::span<const Compute> doutputs, std::span<Compute> gradients,
                std::span<Compute> dinputs = {}, StatesType* dstates = nullptr) const {
    workspace.check_training();
    const Shape shape = workspace.recorded_;
    require(shape.batch >= 1, "workspace", "without a recorded forward pass", "one on which forward() was called last");
    check_outputs(doutputs, shape.tokens());
    check_gradients(gradients, shape, dstates);
    if (!dinputs.empty()) {
      require(!takes_tokens, "dinputs", "given", "none: tokens have no gradient");
      require(static_cast<Index>(dinputs.size()) == shape.tokens() * Definition::input_width, "dinputs.size()",
              dinputs.size(), [&] {
                return std::to_string(shape.tokens() * Definition::input_width) + ", batch times length times inputs";
              });
    }
    auto run = workspace.buffers(shape);
    const auto back = backward_run(workspace, shape, run, gradients.data(), dstates);
    Definition::leave_backward(back, MatrixView<const Compute>(run.normed),
                               matrix(doutputs.data(), shape.tokens(), Index{Definition::output_width}), run.dx);
    backward_body(workspace, back, run, dinputs.empty() ? nullptr : dinputs.data());
  }

  /// Throws what loss() and gradient() would throw for these arguments on any workspace, however large.
  template <class Target>
  static void check_batch(std::span<const Input> inputs, std::span<const Target> targets, Shape shape) {
    static_assert(std::same_as<Target, Input>, "targets are tokens where inputs are, and numbers where inputs are");
    WorkspaceType::check_shape(shape);
    check_inputs(inputs, shape);
    const Index size = shape.tokens() * (takes_tokens ? 1 : Definition::output_width);
    require(static_cast<Index>(targets.size()) == size, "targets.size()", targets.size(),
            [&] { return std::to_string(size) + ", as the shape says"; });
    if constexpr (takes_tokens) check_tokens("targets", targets, masked_target);
  }

  /// Throws what loss() and gradient() would throw for these arguments.
  template <class Target>
  static void check_batch(const WorkspaceType& workspace, std::span<const Input> inputs,
                          std::span<const Target> targets, Shape shape, const StatesType* states = nullptr) {
    workspace.check(shape);
    check_batch(inputs, targets, shape);
    check_states("states.count()", states, shape);
  }

  /// The losses of a batch against targets: (B, L) token ids, or masked_target for those that do not count.
  Losses loss(WorkspaceType& workspace, std::span<const Token> inputs, std::span<const Token> targets, Shape shape,
              StatesType* states = nullptr) const requires takes_tokens {
    return token_loss(workspace, inputs, targets, shape, {}, states, nullptr);
  }

  /// The same, and adds the gradient of the total loss to `gradients`. On a training workspace only. `dstates` as in
  /// backward().
  Losses gradient(WorkspaceType& workspace, std::span<const Token> inputs, std::span<const Token> targets, Shape shape,
                  std::span<Compute> gradients, StatesType* states = nullptr,
                  StatesType* dstates = nullptr) const requires takes_tokens {
    workspace.check_training();
    check_gradients(gradients, shape, dstates);
    return token_loss(workspace, inputs, targets, shape, gradients, states, dstates);
  }

  /// The losses of a batch against targets (B, L, Outputs): the mean of the squared errors.
  Losses loss(WorkspaceType& workspace, std::span<const Compute> inputs, std::span<const Compute> targets, Shape shape,
              StatesType* states = nullptr) const requires(!takes_tokens) {
    return series_loss(workspace, inputs, targets, shape, {}, states, nullptr);
  }
  Losses gradient(WorkspaceType& workspace, std::span<const Compute> inputs, std::span<const Compute> targets,
                  Shape shape, std::span<Compute> gradients, StatesType* states = nullptr,
                  StatesType* dstates = nullptr) const requires(!takes_tokens) {
    workspace.check_training();
    check_gradients(gradients, shape, dstates);
    return series_loss(workspace, inputs, targets, shape, gradients, states, dstates);
  }

 private:
  using Buffers = typename WorkspaceType::Buffers;
  using Body = typename Definition::Body;
  using Norm = typename Definition::Norm;

  void check_call(const WorkspaceType& workspace, std::span<const Input> inputs, Shape shape,
                  const StatesType* states) const {
    workspace.check(shape);
    check_inputs(inputs, shape);
    check_states("states.count()", states, shape);
  }

  static void check_inputs(std::span<const Input> inputs, Shape shape) {
    require(static_cast<Index>(inputs.size()) == shape.tokens() * Definition::input_width, "inputs.size()",
            inputs.size(),
            [&] { return std::to_string(shape.tokens() * Definition::input_width) + ", as the shape says"; });
    if constexpr (takes_tokens) check_tokens("inputs", inputs, 0);
  }

  static void check_states(const char* name, const StatesType* states, Shape shape) {
    require(states == nullptr || states->count() == shape.batch, name, states == nullptr ? 0 : states->count(),
            [&] { return std::to_string(shape.batch) + ", the batch"; });
  }

  static void check_tokens(const char* name, std::span<const Token> tokens, Token lowest) {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] >= lowest && tokens[i] < Definition::vocabulary) continue;
      throw std::out_of_range(error_text((std::string(name) + "[" + std::to_string(i) + "]").c_str(), tokens[i],
                                         std::to_string(lowest) + " to " + std::to_string(Definition::vocabulary - 1)));
    }
  }

  static void check_outputs(std::span<const Compute> outputs, Index rows) {
    require(static_cast<Index>(outputs.size()) == rows * Definition::output_width, "outputs.size()", outputs.size(),
            [&] { return std::to_string(rows * Definition::output_width) + ", rows times output width"; });
  }

  static void check_gradients(std::span<const Compute> gradients, Shape shape, const StatesType* dstates) {
    require(static_cast<Index>(gradients.size()) == Definition::parameters, "gradients.size()", gradients.size(),
            [] { return std::to_string(Definition::parameters) + ", the definition's count"; });
    check_states("dstates.count()", dstates, shape);
  }

  Forward<Backend, S, Compute> forward_run(WorkspaceType& workspace, Shape shape, const Buffers& run,
                                           StatesType* states) const {
    return {workspace.device_,
            shape,
            workspace.purpose_ == Purpose::training,
            data_,
            states == nullptr ? StateView<Compute>{} : states->view(),
            workspace.report_.data(),
            run.body_tape,
            run.scratch};
  }

  Backward<Backend, S, Compute> backward_run(WorkspaceType& workspace, Shape shape, const Buffers& run,
                                             Compute* gradients, StatesType* dstates) const {
    return {workspace.device_,
            shape,
            Definition::auxiliary_weight,
            data_,
            gradients,
            dstates == nullptr ? StateView<Compute>{} : dstates->view(),
            workspace.report_.data(),
            run.body_tape,
            run.scratch};
  }

  /// Everything but the head: leaves the output of the final norm in the buffers.
  Buffers run_body(WorkspaceType& workspace, std::span<const Input> inputs, Shape shape, StatesType* states) const {
    const Buffers run = workspace.buffers(shape);
    const auto forward = forward_run(workspace, shape, run, states);
    if (forward.training) {
      std::copy(inputs.begin(), inputs.end(), run.inputs);
      workspace.recorded_ = shape;
    }
    Definition::enter(forward, inputs.data(), run.x);
    Body::forward(forward.advanced({.parameters = Definition::body_offset}), run.x);
    auto norm = forward.advanced({.parameters = Definition::norm_offset});
    norm.tape = run.norm_tape;
    Norm::forward(norm, MatrixView<const Compute>(run.x), run.normed);
    return run;
  }

  void leave(WorkspaceType& workspace, const Buffers& run, MatrixView<const Compute> rows,
             std::span<Compute> outputs) const {
    Definition::leave(forward_run(workspace, {rows.rows, 1}, run, nullptr), rows,
                      matrix(outputs.data(), rows.rows, Index{Definition::output_width}));
  }

  /// From the gradient by the final norm's output, in run.dx, back to the inputs.
  void backward_body(WorkspaceType& workspace, Backward<Backend, S, Compute> back, Buffers& run,
                     Compute* dinputs) const {
    auto norm = back.advanced({.parameters = Definition::norm_offset});
    norm.tape = run.norm_tape;
    // The norm's output is not needed any more; its buffer takes the gradient by the residual stream.
    fill(back.device, Compute(0), run.normed);
    Norm::backward(norm, MatrixView<const Compute>(run.x), MatrixView<const Compute>(run.dx), run.normed);
    Body::backward(back.advanced({.parameters = Definition::body_offset}), run.normed);
    Definition::enter_backward(back, run.inputs, MatrixView<const Compute>(run.normed), dinputs);
    workspace.recorded_ = {};
  }

  Losses token_loss(WorkspaceType& workspace, std::span<const Token> inputs, std::span<const Token> targets,
                    Shape shape, std::span<Compute> gradients, StatesType* states, StatesType* dstates) const {
    check_batch(workspace, inputs, targets, shape, states);

    const bool with_gradient = !gradients.empty();
    auto run = run_body(workspace, inputs, shape, states);
    Losses losses;
    for (const Token target : targets) losses.targets += target != masked_target ? 1 : 0;
    const double mean = 1.0 / static_cast<double>(std::max<Index>(losses.targets, 1));
    Definition::loss(workspace.device_, static_cast<const S*>(data_), MatrixView<const Compute>(run.normed),
                     targets.data(), mean, with_gradient ? run.dx : MatrixView<Compute>{},
                     with_gradient ? gradients.data() : nullptr, &workspace.report_.back(), run.scratch);
    losses.prediction = mean * workspace.report_.back();
    losses.auxiliary = workspace.auxiliary_loss();
    if (with_gradient) {
      backward_body(workspace, backward_run(workspace, shape, run, gradients.data(), dstates), run, nullptr);
    } else {
      workspace.recorded_ = {};
    }
    return losses;
  }

  Losses series_loss(WorkspaceType& workspace, std::span<const Compute> inputs, std::span<const Compute> targets,
                     Shape shape, std::span<Compute> gradients, StatesType* states, StatesType* dstates) const {
    check_batch(workspace, inputs, targets, shape, states);
    const Index tokens = shape.tokens(), numbers = tokens * Definition::output_width;

    auto run = run_body(workspace, inputs, shape, states);
    Arena scratch = run.scratch;
    const auto outputs = matrix(scratch.template take<Compute>(numbers), tokens, Index{Definition::output_width});
    leave(workspace, run, run.normed, {outputs.data, static_cast<std::size_t>(numbers)});
    const double mean = 1.0 / static_cast<double>(std::max<Index>(numbers, 1));
    const bool with_gradient = !gradients.empty();
    Losses losses{.targets = numbers};
    squared_error(workspace.device_, outputs, matrix(targets.data(), tokens, outputs.columns), mean,
                  with_gradient ? outputs : MatrixView<Compute>{}, &workspace.report_.back());
    losses.prediction = mean * workspace.report_.back();
    losses.auxiliary = workspace.auxiliary_loss();
    if (with_gradient) {
      const auto back = backward_run(workspace, shape, run, gradients.data(), dstates);
      Definition::leave_backward(back, MatrixView<const Compute>(run.normed), MatrixView<const Compute>(outputs),
                                 run.dx);
      backward_body(workspace, back, run, nullptr);
    } else {
      workspace.recorded_ = {};
    }
    return losses;
  }

  typename Backend::Memory memory_;
  S* data_ = nullptr;
};

}  // namespace moe_mamba
