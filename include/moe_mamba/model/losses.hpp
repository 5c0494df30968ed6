#pragma once

#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// The losses of a batch.
struct Losses {
  double prediction = 0;  ///< mean over the targets: cross-entropy in nats, or squared error of a sequence model
  double auxiliary = 0;   ///< of the routers, as they enter the total
  Index targets = 0;      ///< unmasked tokens; for a sequence model, numbers

  double total() const { return prediction + auxiliary; }

  /// Combines the losses of two batches: means over the targets of both, so each batch is weighted by its number of
  /// targets.
  Losses& operator+=(const Losses& other) {
    if (other.targets == 0) return *this;
    targets += other.targets;
    const double share = static_cast<double>(other.targets) / static_cast<double>(targets);
    prediction += share * (other.prediction - prediction);
    auxiliary += share * (other.auxiliary - auxiliary);
    return *this;
  }
};

}  // namespace moe_mamba::inline v0_2
