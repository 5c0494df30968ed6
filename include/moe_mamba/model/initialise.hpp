#pragma once

#include <algorithm>
#include <cmath>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/random.hpp"

/// Initialisation of parameters.
namespace moe_mamba::inline v0_2 {

/// Fills one parameter by its initialiser. Each parameter has its own stream of random numbers, so that its values depend only
/// on the seed and on its number in the model.
template <StorageScalar S>
void initialise(const Parameter& parameter, Seed seed, Index number, Index branches, S* values) {
  Random random(seed, static_cast<std::uint64_t>(number));
  const Initializer& initializer = parameter.initializer;
  const double divisor = initializer.per_branch ? std::sqrt(static_cast<double>(std::max<Index>(branches, 1))) : 1.0;
  const Index columns = parameter.shape[static_cast<std::size_t>(parameter.rank - 1)];
  for (Index i = 0; i < parameter.size(); ++i) {
    const double value = initializer.draw == nullptr ? 0.0 : initializer.draw(initializer, random, i % columns);
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

}  // namespace moe_mamba::inline v0_2
