#pragma once

#include <algorithm>
#include <cmath>

#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/layers/parameter.hpp"

/// How parameters begin.
namespace moe_mamba {

/// Fills one parameter by its law. Draws come from a stream of the parameter's own, so that a parameter's values depend
/// on the seed and its number in the model only.
template <StorageScalar S>
void initialise(const Parameter& parameter, Seed seed, Index number, Index branches, S* values) {
  Random random(seed, static_cast<std::uint64_t>(number));
  const Initial& initial = parameter.initial;
  const double divisor = initial.per_branch ? std::sqrt(static_cast<double>(std::max<Index>(branches, 1))) : 1.0;
  const double fan_in = static_cast<double>(initial.fan_in);
  const Index last = parameter.shape[static_cast<std::size_t>(parameter.rank - 1)];
  for (Index i = 0; i < parameter.size(); ++i) {
    double value = 0;
    switch (initial.law) {
      case Initial::Law::zeros:
        break;
      case Initial::Law::ones:
        value = 1;
        break;
      case Initial::Law::uniform:
        value = random.uniform(-1, 1) * initial.scale / std::sqrt(fan_in);
        break;
      case Initial::Law::normal:
        value = random.normal() * initial.scale;
        break;
      case Initial::Law::truncated_normal:
        value = random.truncated_normal(2) * std::sqrt(initial.scale / fan_in);
        break;
      case Initial::Law::log_states:
        value = std::log(static_cast<double>(i % last + 1));
        break;
      case Initial::Law::step_bias: {
        const double step = std::exp(random.uniform(std::log(0.001), std::log(0.1)));
        value = inverse_softplus(std::max(step, 1e-4));
        break;
      }
    }
    values[i] = S(value / divisor);
  }
}

/// Fills all parameters of a definition.
template <class Definition, StorageScalar S>
void initialise(Seed seed, S* parameters) {
  Index number = 0;
  Definition::visit_parameters([&](const Parameter& parameter) {
    initialise(parameter, seed, number++, Definition::Body::branches, parameters + parameter.offset);
  });
}

}  // namespace moe_mamba
