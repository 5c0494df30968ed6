#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <locale>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "moe_mamba/cuda.hpp"
#include "moe_mamba/moe_mamba.hpp"

/// Does a device compute what the Cpu computes? A program's own answer, for its own definition.
namespace moe_mamba::inline v0_2 {

/// How far a device is from the Cpu, each relative to the Cpu's numbers, in root mean squares.
struct SelfCheck {
  double outputs = 0;    ///< of all steps
  double states = 0;     ///< behind the last step
  double loss = 0;       ///< of the total
  double gradients = 0;  ///< of all parameters
  double allowed = 0;    ///< what rounding explains: see self_check()

  /// NaN does not pass.
  bool passed() const { return outputs <= allowed && states <= allowed && loss <= allowed && gradients <= allowed; }

  /// One line that says all of it.
  std::string text() const {
    std::ostringstream line;
    line.imbue(std::locale::classic());
    line << (passed() ? "passed" : "FAILED") << ": outputs differ by " << outputs << ", states by " << states
         << ", loss by " << loss << ", gradients by " << gradients << "; allowed: " << allowed;
    return line.str();
  }
};

namespace detail {

/// The root of the mean square of a difference over that of what was expected; NaN stays.
template <class T>
double relative_difference(std::span<const T> actual, std::span<const T> expected) {
  double difference = 0, magnitude = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double e = static_cast<double>(expected[i]), d = static_cast<double>(actual[i]) - e;
    difference += d * d;
    magnitude += e * e;
  }
  return magnitude > 0 ? std::sqrt(difference / magnitude) : std::sqrt(difference);
}

/// Inputs or targets that are right for a definition.
template <class Definition, StorageScalar S>
std::vector<InputOf<Definition, S>> random_numbers(Index count, Random& random) {
  std::vector<InputOf<Definition, S>> values(static_cast<std::size_t>(count));
  for (auto& value : values) {
    if constexpr (TokenDefinition<Definition>) {
      value = static_cast<Token>(random.below(static_cast<std::uint64_t>(Definition::vocabulary)));
    } else {
      value = static_cast<InputOf<Definition, S>>(random.uniform(-1, 1));
    }
  }
  return values;
}

}  // namespace detail

/// Runs a batch of this shape, forward and backward, through one model on both, with parameters and data drawn from the
/// seed. Differences are those of root mean squares. Allowed are 1e-10 for double, 1e-3 for float, and 5e-2 for bfloat16
/// and with products in TF32, where a device rounds what the CPU does not: far above rounding and far below what a wrong
/// kernel gives. Where a router has two experts equal to rounding, the two may choose differently; with bfloat16 some
/// tokens of every batch meet such a pair and come out otherwise, so that a mixture is allowed 0.4 there, which tells a
/// broken kernel from a sound one and no more: its float check is the sharp one.
///
/// Needs moe_mamba.hpp's and cuda.hpp's dependencies and the definition's kernels. Throws what models, workspaces and
/// calls on them throw.
template <class Definition, StorageScalar S>
SelfCheck self_check(cuda::Device& device, Shape shape = {2, 67}, Seed seed = {1}) {
  using C = compute_t<S>;
  using Input = InputOf<Definition, S>;
  Random random(seed, 0x5e1f);
  const auto inputs = detail::random_numbers<Definition, S>(shape.tokens() * Definition::input_width, random);
  const auto targets = detail::random_numbers<Definition, S>(
      shape.tokens() * (TokenDefinition<Definition> ? 1 : Definition::output_width), random);
  struct Results {
    std::vector<C> outputs, states, gradients;
    double loss = 0;
  };
  const auto run = [&]<class Backend>(Backend& on) {
    using Memory = typename Backend::Memory;
    const auto count = static_cast<std::size_t>(Definition::parameters);
    Results results;
    const Model<Definition, S, Backend> model(seed);
    Workspace<Definition, S, Backend> workspace(on, shape, Purpose::training);
    States<Definition, S, Memory> states(shape.batch);
    Array<C, Memory> gradients(count);
    results.outputs.resize(static_cast<std::size_t>(shape.tokens() * Definition::output_width));
    model.forward(workspace, std::span<const Input>(inputs), shape, results.outputs, &states);
    results.states.resize(states.values().size());
    states.read(results.states);
    results.loss =
        model.gradient(workspace, std::span<const Input>(inputs), std::span<const Input>(targets), shape, gradients)
            .total();
    results.gradients.resize(count);
    gradients.read(results.gradients);
    return results;
  };
  Cpu cpu;
  const Results expected = run(cpu), actual = run(device);
  const auto difference = [](const std::vector<C>& a, const std::vector<C>& b) {
    return detail::relative_difference(std::span<const C>(a), std::span<const C>(b));
  };
  SelfCheck check{.outputs = difference(actual.outputs, expected.outputs),
                  .states = difference(actual.states, expected.states),
                  .loss = std::abs(actual.loss - expected.loss) / std::max(std::abs(expected.loss), 1e-30),
                  .gradients = difference(actual.gradients, expected.gradients)};
  constexpr bool routes = Definition::Body::auxiliary_count > 0;
  check.allowed = std::same_as<S, double>                    ? 1e-10
                  : std::same_as<S, bfloat16>                ? (routes ? 0.4 : 5e-2)
                  : device.products() == FloatProducts::tf32 ? 5e-2
                                                             : 1e-3;
  return check;
}

}  // namespace moe_mamba::inline v0_2
