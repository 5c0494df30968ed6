#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/runtime/recording.hpp"

namespace moe_mamba::inline v0_2 {

/// The key of a trainer's recording: another shape or other memory needs another one.
struct RecordedWork {
  Shape shape;
  const void* workspace = nullptr;
  const void* states = nullptr;
  const void* parameters = nullptr;
  friend bool operator==(const RecordedWork&, const RecordedWork&) = default;
};

/// A recording of repeated work. The launches for packed sequences depend on their lengths, of which a copy is kept for
/// comparison.
template <class Backend>
class WorkRecording {
 public:
  /// Reserves the memory that run() needs for this shape.
  void reserve(const Shape& shape) {
    if (records && shape.lengths != nullptr) lengths_.reserve(static_cast<std::size_t>(shape.batch));
  }

  /// Calls `queue`, or replays what it enqueued in the device's stream before if the work is the same. Needs a
  /// reserve() for its shape.
  template <class Queue>
  void run(Backend& device, RecordedWork work, const Queue& queue) {
    if constexpr (records) {
      const Index* const lengths = work.shape.lengths;
      const Index count = lengths == nullptr ? 0 : work.shape.batch;
      const bool same_lengths = std::equal(lengths, lengths + count, lengths_.begin(), lengths_.end());
      // The caller's lengths may have another address next time.
      work.shape.lengths = lengths == nullptr ? nullptr : lengths_.data();
      if (!same_lengths || work != work_) {
        forget();
        lengths_.assign(lengths, lengths + count);
      }
      work_ = work;
    }
    recording_.run(device, queue);
  }

  void forget() {
    recording_.forget();
    work_ = {};
  }

 private:
  using Recording = typename Backend::Recording;
  static constexpr bool records = !std::is_same_v<Recording, DirectRecording>;

  Recording recording_;
  RecordedWork work_;
  std::vector<Index> lengths_;
};

}  // namespace moe_mamba::inline v0_2
