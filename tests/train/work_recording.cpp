// When a trainer's recording is replayed, by a backend that only counts.
#include "moe_mamba/train/work_recording.hpp"

#include <vector>

#include "support/allocations.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

struct CountingDevice {
  int recorded = 0, replayed = 0;

  struct Recording {
    bool seen = false;
    template <class Work>
    void run(CountingDevice& device, const Work& work) {
      (seen ? device.replayed : device.recorded) += 1;
      seen = true;
      work();
    }
    void forget() { seen = false; }
  };
};

/// Runs work of this shape and returns whether it was replayed.
bool replays(WorkRecording<CountingDevice>& recording, const Shape& shape, const void* workspace = nullptr) {
  CountingDevice device;
  int calls = 0;
  recording.reserve(shape);
  recording.run(device, {.shape = shape, .workspace = workspace}, [&] { ++calls; });
  CHECK(calls == 1);
  CHECK(device.recorded + device.replayed == 1);
  return device.replayed == 1;
}

}  // namespace

TEST_CASE("Work is replayed where shape and memory are the same", "[train]") {
  WorkRecording<CountingDevice> recording;
  const int somewhere = 0;
  CHECK_FALSE(replays(recording, {2, 5}));
  CHECK(replays(recording, {2, 5}));
  CHECK_FALSE(replays(recording, {5, 2}));
  CHECK_FALSE(replays(recording, {5, 2}, &somewhere));
  CHECK(replays(recording, {5, 2}, &somewhere));
  recording.forget();
  CHECK_FALSE(replays(recording, {5, 2}, &somewhere));
}

TEST_CASE("Work on packed sequences is replayed where all lengths are the same, wherever they lie", "[train]") {
  WorkRecording<CountingDevice> recording;
  std::vector<Index> lengths{3, 1, 0};
  const std::vector<Index> copy = lengths, others{1, 3, 0}, more{3, 1, 0, 0};
  CHECK_FALSE(replays(recording, Shape::packed(lengths)));
  CHECK(replays(recording, Shape::packed(lengths)));
  CHECK(replays(recording, Shape::packed(copy)));
  // As many tokens in as many sequences, in the place of the lengths before.
  lengths = others;
  CHECK_FALSE(replays(recording, Shape::packed(lengths)));
  CHECK(replays(recording, Shape::packed(others)));
  CHECK_FALSE(replays(recording, Shape::packed(more)));
  CHECK_FALSE(replays(recording, Shape::packed(copy)));
  // What is as long is not the same launch.
  const std::vector<Index> equal{2, 2};
  CHECK_FALSE(replays(recording, {2, 2}));
  CHECK_FALSE(replays(recording, Shape::packed(equal)));
  CHECK_FALSE(replays(recording, {2, 2}));
  CHECK(replays(recording, {2, 2}));
}

TEST_CASE("A recording takes no memory after reserve()", "[train]") {
  WorkRecording<CountingDevice> recording;
  const std::vector<Index> lengths(100, 3), fewer(7, 5);
  recording.reserve(Shape::packed(lengths));
  CountingDevice device;
  const test::AllocationCounter counter;
  for (const auto* some : {&lengths, &fewer, &lengths}) {
    recording.run(device, {.shape = Shape::packed(*some)}, [] {});
  }
  const long allocations = counter.count();
  CHECK(allocations == 0);
}
