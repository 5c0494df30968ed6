#pragma once

#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/runtime/memory.hpp"
#include "moe_mamba/runtime/recording.hpp"

namespace moe_mamba::inline v0_2::reference {

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

}  // namespace moe_mamba::inline v0_2::reference
