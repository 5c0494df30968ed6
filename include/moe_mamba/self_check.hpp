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

/// Checks, for a program's own definition, that a device computes the same as the Cpu.
namespace moe_mamba::inline v0_2 {

/// Differences between a device's results and the Cpu's: root mean squares, relative to that of the Cpu's results.
struct SelfCheck {
  double outputs = 0;    ///< of all steps
  double states = 0;     ///< after the last step
  double loss = 0;       ///< of the total
  double gradients = 0;  ///< of all parameters
  double allowed = 0;    ///< the bound for rounding errors: see self_check()

  /// NaN does not pass.
  bool passed() const { return outputs <= allowed && states <= allowed && loss <= allowed && gradients <= allowed; }

  /// The result in one line.
  std::string text() const {
    std::ostringstream line;
    line.imbue(std::locale::classic());
    line << (passed() ? "passed" : "FAILED") << ": outputs differ by " << outputs << ", states by " << states
         << ", loss by " << loss << ", gradients by " << gradients << "; allowed: " << allowed;
    return line.str();
  }
};

namespace detail {

/// The root mean square of the difference, relative to that of the expected values; a NaN results in NaN.
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

/// Random inputs or targets that are valid for a definition.
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

/// Runs a batch of this shape, forward and backward, through one model on both, with random parameters and data from the seed.
/// Allowed differences are 1e-10 for double, 1e-3 for float, and 5e-2 for bfloat16 and for products in TF32, where a device
/// rounds values that the CPU does not: far above rounding errors and far below the errors of a wrong kernel. If two experts of
/// a router are equal up to rounding, the device and the Cpu may select different ones. With bfloat16 this happens to some tokens
/// of every batch, so that models with experts are allowed 0.4, which only detects broken kernels; the float check is precise.
///
/// Needs the dependencies of moe_mamba.hpp and cuda.hpp and the definition's kernels. Throws as models, workspaces and calls on
/// them do.
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
