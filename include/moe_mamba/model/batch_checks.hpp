#pragma once

#include <algorithm>
#include <span>
#include <string>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/states.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/ops/masked_target.hpp"
#include "moe_mamba/runtime/array.hpp"

namespace moe_mamba::inline v0_2 {

/// The checks of the arguments of a model's calls. They throw std::invalid_argument for a size that does not match, and
/// std::out_of_range for a token outside the vocabulary, which can be checked in a std::span only.
template <class Definition, StorageScalar S, class Backend>
struct BatchChecks {
  using Input = InputOf<Definition, S>;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using StatesType = States<Definition, S, typename Backend::Memory>;
  static constexpr bool takes_tokens = TokenDefinition<Definition>;

  static void parameters(const char* name, std::size_t size) {
    require(static_cast<Index>(size) == Definition::parameters, name, size,
            [] { return std::to_string(Definition::parameters) + ", the definition's count"; });
  }

  static void states(const char* name, const StatesType* states, Shape shape) {
    require(states == nullptr || states->count() == shape.batch, name, states == nullptr ? 0 : states->count(),
            [&] { return std::to_string(shape.batch) + ", the batch"; });
  }

  static void outputs(std::size_t size, Index rows) {
    require(static_cast<Index>(size) == rows * Definition::output_width, "outputs.size()", size,
            [&] { return std::to_string(rows * Definition::output_width) + ", rows times output width"; });
  }

  static void last_outputs(Shape shape, std::size_t size) {
    for (Index b = 0; b < (shape.lengths == nullptr ? std::min<Index>(1, shape.batch) : shape.batch); ++b) {
      require(shape.length_of(b) >= 1, "shape.length", shape.length_of(b),
              "1 or more, for the outputs of the last step");
    }
    outputs(size, shape.batch);
  }

  /// For a forward pass.
  template <class Inputs>
  static void inputs(const WorkspaceType& workspace, Inputs inputs, Shape shape, const StatesType* running) {
    workspace.check(shape);
    input_count(inputs.size(), shape);
    tokens("inputs", inputs, 0);
    states("states.count()", running, shape);
  }

  /// For one step, whose batch size is that of its states.
  static void step(const WorkspaceType& workspace, const StatesType& states, std::size_t inputs) {
    require(states.count() <= workspace.largest().batch, "states.count()", states.count(),
            [&] { return "0 to " + std::to_string(workspace.largest().batch) + ", the workspace's largest batch"; });
    require(static_cast<Index>(inputs) == states.count() * Definition::input_width, "inputs.size()", inputs, [&] {
      return std::to_string(states.count() * Definition::input_width) + ", " + std::to_string(Definition::input_width) +
             " for each of the " + std::to_string(states.count()) + " states";
    });
  }

  /// For a batch with targets, on a workspace of any size.
  template <class Inputs>
  static void batch(Inputs inputs, Inputs targets, Shape shape) {
    WorkspaceType::check_shape(shape);
    input_count(inputs.size(), shape);
    const Index wanted = shape.tokens() * (takes_tokens ? 1 : Definition::output_width);
    require(static_cast<Index>(targets.size()) == wanted, "targets.size()", targets.size(),
            [&] { return std::to_string(wanted) + ", for this shape"; });
    tokens("inputs", inputs, 0);
    tokens("targets", targets, masked_target);
  }
  /// The same on this workspace.
  template <class Inputs>
  static void batch(const WorkspaceType& workspace, Inputs inputs, Inputs targets, Shape shape,
                    const StatesType* running = nullptr) {
    workspace.check(shape);
    batch(inputs, targets, shape);
    states("states.count()", running, shape);
  }

  /// The number of unmasked targets.
  static Index targets(std::span<const Input> targets) {
    auto counted = static_cast<Index>(targets.size());
    if constexpr (takes_tokens) counted -= std::count(targets.begin(), targets.end(), masked_target);
    return counted;
  }

  /// For a training batch, whose numbers must be finite, on this workspace or, if it is null, on any.
  static void training(const WorkspaceType* workspace, std::span<const Input> inputs, std::span<const Input> targets,
                       Shape shape) {
    if (workspace == nullptr) {
      batch(inputs, targets, shape);
    } else {
      batch(*workspace, inputs, targets, shape);
    }
    if constexpr (!takes_tokens) {
      require_finite("inputs", inputs);
      require_finite("targets", targets);
    }
  }

  /// For gradients w.r.t. parameters and states.
  static void gradients(const WorkspaceType& workspace, std::size_t size, Shape shape, const StatesType* dstates) {
    require(workspace.purpose() == Purpose::training, "workspace.purpose()", "inference", "training, for gradients");
    parameters("gradients.size()", size);
    states("dstates.count()", dstates, shape);
  }

  /// For a backward pass.
  static void backward(const WorkspaceType& workspace, std::size_t doutputs, std::size_t gradient_count,
                       std::size_t dinputs, const StatesType* dstates) {
    require(workspace.purpose() == Purpose::training, "workspace.purpose()", "inference", "training, for gradients");
    if (!workspace.recorded().has_value()) {
      detail::raise<std::invalid_argument>(
          "backward() needs a recorded forward pass: call forward() on this workspace first");
    }
    const Shape shape = workspace.recorded()->shape;
    outputs(doutputs, shape.tokens());
    gradients(workspace, gradient_count, shape, dstates);
    if (dinputs == 0) return;
    require(!takes_tokens, "dinputs", "given", "none: tokens have no gradient");
    const Index wanted = shape.tokens() * Definition::input_width;
    require(static_cast<Index>(dinputs) == wanted, "dinputs.size()", dinputs,
            [&] { return std::to_string(wanted) + ", batch times length times inputs"; });
  }

 private:
  static void input_count(std::size_t size, Shape shape) {
    require(static_cast<Index>(size) == shape.tokens() * Definition::input_width, "inputs.size()", size,
            [&] { return std::to_string(shape.tokens() * Definition::input_width) + ", for this shape"; });
  }

  static void tokens(const char* name, std::span<const Input> values, Token lowest) {
    if constexpr (takes_tokens) require_tokens(name, values, lowest, Definition::vocabulary);
  }
  static void tokens(const char*, DeviceSpan<const Input>, Token) {}
};

}  // namespace moe_mamba::inline v0_2
