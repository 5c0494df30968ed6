#pragma once

#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/memory.hpp"
#include "moe_mamba/core/recording.hpp"
#include "moe_mamba/core/scalar.hpp"

/// The second, deliberately naive implementation of every operation: plain loops in double, written from the formulas.
///
/// Each file of ops/ holds the contract of its operations and their reference in `moe_mamba::reference`. The reference is a
/// backend like any other (its device is reference::Device), so the layers and whole models run on it unchanged. It is there
/// to be read and to be compared with, and is never made faster.
namespace moe_mamba::reference {

/// Selects the reference operations where another backend's device would select its own.
class Device {
 public:
  using Memory = HostMemory;
  template <class S>
  using Activation = compute_t<S>;
  using Recording = DirectRecording;

  /// Whether a call on a model is running here.
  ExclusiveCall::Flag& in_use() const { return in_use_; }

 private:
  mutable ExclusiveCall::Flag in_use_;
};

}  // namespace moe_mamba::reference
