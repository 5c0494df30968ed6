#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/runtime/array.hpp"

/// Options of a trainer, and its reports.
namespace moe_mamba::inline v0_2 {

/// The optimizer AdamW (Loshchilov & Hutter 2019).
struct AdamW {
  double learning_rate = 1e-3;    ///< the peak, which is multiplied by the schedule's factor; > 0
  double beta1 = 0.9;             ///< in [0, 1)
  double beta2 = 0.95;            ///< in [0, 1)
  double epsilon = 1e-8;          ///< > 0
  double weight_decay = 0.1;      ///< in [0, 1 / learning_rate]
  Decay decay = Decay::matrices;  ///< which parameters decay: gains, biases, A_log and D only with Decay::everything

  /// Throws std::invalid_argument for options out of range, or not representable in C, in which updates are computed.
  template <ComputeScalar C = double>
  void check() const {
    using Range = std::numeric_limits<C>;
    const auto held = [](double value) { return detail::in_range(value, Range::min(), Range::max()); };
    const auto decays = [](double value) { return detail::in_range(value, 0, 1) && value < 1; };
    const auto range = [] {
      return detail::exact_text(Range::min()) + " to " + detail::exact_text(Range::max()) +
             ", as updates are computed in " + (std::same_as<C, float> ? "float" : "double");
    };
    require(held(learning_rate), "learning_rate", learning_rate, range);
    require(decays(beta1), "beta1", beta1, "0 <= beta1 < 1");
    require(decays(beta2), "beta2", beta2, "0 <= beta2 < 1");
    require(held(epsilon), "epsilon", epsilon, range);
    require(decay == Decay::matrices || decay == Decay::everything, "decay", static_cast<int>(decay),
            "Decay::matrices or Decay::everything");
    require(detail::in_range(weight_decay, 0, 1 / learning_rate), "weight_decay", weight_decay, [&] {
      return "0 to " + detail::exact_text(1 / learning_rate) +
             ", 1 / learning_rate: more would change parameters' signs";
    });
  }
};

struct TrainerOptions {
  /// The largest batch, 1 or more sequences of 1 or more steps: memory is allocated once, in the constructor. By
  /// default it is allocated in the first step, and again if a later batch is larger.
  Shape largest = {};
  double clip_norm = 1.0;  ///< gradients with a larger global norm are scaled down to it; 0: never
  /// Truncated back-propagation through time: running states are carried from batch to batch if a batch says that it
  /// continues the previous one, and are reset otherwise. Memory for them is allocated with the rest, and again if a
  /// batch has more sequences than any before, whatever `largest` is.
  bool carry_states = false;
  /// The amount by which an update moves the selection biases of routers: up if the expert's load is below the mean and
  /// down if it is above (SelectionBias); 0: not at all.
  double selection_bias_rate = 1e-3;

  /// Throws std::invalid_argument.
  void check() const {
    require(detail::in_range(clip_norm, 0, std::numeric_limits<double>::max()), "clip_norm", clip_norm,
            "a finite number >= 0");
    require(detail::in_range(selection_bias_rate, 0, std::numeric_limits<float>::max()), "selection_bias_rate",
            selection_bias_rate, "a number >= 0 in the range of float");
    require(largest.batch >= 0, "largest.batch", largest.batch, "0 or more");
    require(largest.length >= 0, "largest.length", largest.length, "0 or more");
    require(largest.batch == 0 || largest.length > 0, "largest.length", largest.length,
            "1 or more, as largest.batch is");
    require(largest.length == 0 || largest.batch > 0, "largest.batch", largest.batch,
            "1 or more, as largest.length is");
  }
};

/// The report of a training step.
struct StepReport {
  /// Prediction loss, mean over all targets of the update: nats per token, or mean squared error. Accumulated batches
  /// are weighted by their numbers of targets.
  double loss = 0;
  double auxiliary =
      0;  ///< the routers' losses, not included in it; for several batches the mean with the same weights
  double gradient_norm = 0;  ///< global norm of the mean gradient, before clipping
  double learning_rate = 0;
  Index targets = 0;  ///< the number of targets; 0: there was nothing to learn, and no update
  /// Whether parameters were changed. They are not without targets, nor if the gradient has a NaN or an infinity; then
  /// carried states, which may have one too, are reset to zero.
  bool applied = false;
};

/// The state of a trainer that a checkpoint keeps, besides the parameters; T is the trainer's compute type.
template <class T>
struct TrainerProgress {
  Index steps = 0;
  HostNumbers<T> first_moment, second_moment;
  HostNumbers<std::int16_t> remainder;  ///< for bfloat16 parameters; otherwise empty
  HostNumbers<T> states;                ///< carried states, (B, state_size), if any

  /// Throws std::invalid_argument unless it is for `parameters` parameters and `kept` elements of the remainder.
  void check(std::size_t parameters, std::size_t kept) const {
    const auto size = [](const char* name, std::size_t given, std::size_t wanted) {
      require(given == wanted, name, given, [&] { return std::to_string(wanted); });
    };
    require(steps >= 0 && steps <= Index{1} << 53, "progress.steps", steps, "0 to 2^53");
    size("progress.first_moment.size()", first_moment.size(), parameters);
    size("progress.second_moment.size()", second_moment.size(), parameters);
    size("progress.remainder.size()", remainder.size(), kept);
  }

  /// The number of sequences of the carried states. Throws std::invalid_argument if their size does not match.
  Index sequences(Index state_size, bool carry_states) const {
    if (states.empty()) return 0;
    const auto size = static_cast<std::size_t>(std::max<Index>(state_size, 1));
    require(carry_states && states.size() % size == 0, "progress.states.size()", states.size(),
            "a multiple of state_size, and 0 without carry_states");
    return static_cast<Index>(states.size() / size);
  }
};

}  // namespace moe_mamba::inline v0_2
