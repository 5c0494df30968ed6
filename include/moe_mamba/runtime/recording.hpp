#pragma once

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2 {

/// Work that is done again and again, on a backend where nothing is gained by recording it: it is done each time.
struct DirectRecording {
  template <class Device, class Work>
  void run(Device&, const Work& work) {
    work();
  }
  void forget() {}
};

}  // namespace moe_mamba::inline v0_2
