#pragma once

#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// What a trainer's recording is of: another shape, or memory elsewhere, needs another one.
struct RecordedWork {
  Shape shape;
  const void* workspace = nullptr;
  const void* states = nullptr;
  const void* parameters = nullptr;
  friend bool operator==(const RecordedWork&, const RecordedWork&) = default;
};

/// A recording of the work that is done again and again.
template <class Backend>
class WorkRecording {
 public:
  /// Calls `queue`, or puts what it put into the device's stream before into it again where the work is the same.
  template <class Queue>
  void run(Backend& device, const RecordedWork& work, const Queue& queue) {
    if (work != work_) forget();
    work_ = work;
    recording_.run(device, queue);
  }

  void forget() {
    recording_.forget();
    work_ = {};
  }

 private:
  typename Backend::Recording recording_;
  RecordedWork work_;
};

}  // namespace moe_mamba::inline v0_2
