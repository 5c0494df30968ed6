// Sharing work among threads.
#include "moe_mamba/cpu/device.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using namespace moe_mamba;

TEST_CASE("every task is done once, by one of the threads, before the call returns", "[cpu][device]") {
  for (const int threads : {1, 2, 3, 16}) {
    cpu::Device device(Threads{threads});
    CHECK(device.threads() == threads);
    for (int repeat = 0; repeat < 200; ++repeat) {
      for (const Index tasks : {Index{0}, Index{1}, Index{2}, Index{3}, Index{threads}, Index{100}}) {
        // Not atomic: a sanitizer would also see a task that ran twice concurrently, or after the call.
        std::vector<int> done(static_cast<std::size_t>(tasks));
        std::atomic<bool> in_range = true;
        device.parallel(tasks, [&](Index index, int thread) {
          if (thread < 0 || thread >= threads) in_range = false;
          ++done[static_cast<std::size_t>(index)];
        });
        REQUIRE(in_range);
        REQUIRE(std::all_of(done.begin(), done.end(), [](int times) { return times == 1; }));
      }
    }
  }
}

TEST_CASE("unequal tasks are balanced", "[cpu][device]") {
  cpu::Device device(Threads{3});
  std::vector<int> by(60);
  device.parallel(60, [&](Index index, int thread) {
    by[static_cast<std::size_t>(index)] = thread;
    std::this_thread::sleep_for(std::chrono::microseconds(index % 7 == 0 ? 5000 : 300));
  });
  for (const int thread : {0, 1, 2}) CHECK(std::count(by.begin(), by.end(), thread) > 0);
}

TEST_CASE("calls on several devices run concurrently", "[cpu][device]") {
  std::vector<std::thread> callers;
  std::atomic<Index> sum = 0;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&sum] {
      cpu::Device device(Threads{2});
      for (int repeat = 0; repeat < 300; ++repeat) {
        device.parallel(9, [&](Index index, int) { sum.fetch_add(index); });
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(sum == 4 * 300 * 36);
}

TEST_CASE("a thread's scratch memory is its own", "[cpu][device]") {
  cpu::Device device(Threads{3});
  for (const std::size_t bytes : {std::size_t{1}, cpu::Device::thread_scratch_bytes}) {
    const auto scratch = device.thread_scratch(bytes);
    REQUIRE(scratch.bytes >= bytes);
    for (int thread = 0; thread < 3; ++thread) {
      CHECK(reinterpret_cast<std::uintptr_t>(scratch(thread)) % Arena::alignment == 0);
      std::fill_n(scratch(thread), scratch.bytes, std::byte(thread));
    }
    for (int thread = 0; thread < 3; ++thread) {
      CHECK(std::all_of(scratch(thread), scratch(thread) + scratch.bytes,
                        [=](std::byte b) { return b == std::byte(thread); }));
    }
  }
}

TEST_CASE("threads work in lent scratch memory if it is large enough", "[cpu][device]") {
  cpu::Device device(Threads{2});
  const HostMemory memory(256), smaller(128);
  const auto own = device.thread_scratch(1);
  {
    const cpu::Device::ScratchLoan loan(device, {memory.data(), 128});
    CHECK(device.thread_scratch(128)(1) == memory.data() + 128);
    CHECK(device.thread_scratch(129).data == own.data);
    {
      const cpu::Device::ScratchLoan inner(device, {smaller.data(), 64});
      CHECK(device.thread_scratch(64).data == smaller.data());
      CHECK(device.thread_scratch(128).data == own.data);
    }
    CHECK(device.thread_scratch(128).data == memory.data());
  }
  CHECK(device.thread_scratch(1).data == own.data);
}

TEST_CASE("a number of threads out of range is refused", "[cpu][device]") {
  CHECK_THROWS_WITH(cpu::Device(Threads{0}), test::Contains("Threads is 0"));
  CHECK_THROWS_AS(cpu::Device(Threads{1025}), std::invalid_argument);
}

TEST_CASE("a device called by two threads concurrently refuses one of them instead of hanging", "[cpu][device]") {
  cpu::Device device(Threads{2});
  std::atomic<bool> begun{false}, refused{false};
  std::thread first([&] {
    device.parallel(2, [&](Index, int) {
      begun = true;
      while (!refused) std::this_thread::yield();
    });
  });
  while (!begun) std::this_thread::yield();
  CHECK_THROWS_WITH(device.parallel(2, [](Index, int) {}),
                    test::Contains("the device is in the middle of another call"));
  refused = true;
  first.join();
  std::atomic<int> done{0};
  device.parallel(5, [&](Index, int) { ++done; });
  CHECK(done == 5);
}

TEST_CASE("a task's exception is rethrown to the caller once no task is running", "[cpu][device]") {
  for (const int threads : {1, 2, 3, 8}) {
    cpu::Device device(Threads{threads});
    for (const Index tasks : {1, 2, 7, 50}) {
      for (Index bad = 0; bad < tasks; ++bad) {
        std::atomic<int> going_on{0};
        const auto task = [&](Index index, int) {
          ++going_on;
          if (index % 3 == 0) std::this_thread::yield();
          --going_on;
          if (index >= bad) throw std::runtime_error("task");
        };
        CHECK_THROWS_WITH(device.parallel(tasks, task), "task");
        REQUIRE(going_on == 0);
        std::atomic<Index> sum{0};  // the device remains usable, without the failure
        device.parallel(tasks, [&](Index index, int) { sum += index; });
        REQUIRE(sum == tasks * (tasks - 1) / 2);
      }
    }
  }
}
