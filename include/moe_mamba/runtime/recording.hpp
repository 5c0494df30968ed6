#pragma once

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2 {

/// Repeated work on a backend for which recording has no benefit: it is simply run each time.
struct DirectRecording {
  template <class Device, class Work>
  void run(Device&, const Work& work) {
    work();
  }
  void forget() {}
};

}  // namespace moe_mamba::inline v0_2
