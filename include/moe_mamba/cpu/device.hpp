#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/memory.hpp"
#include "moe_mamba/core/scalar.hpp"

namespace moe_mamba::cpu {

/// Where the operations of this folder run: a number of threads with a piece of scratch memory each.
///
/// Every operation takes a device as its first argument. One thread (the default) means the caller's and no other. With
/// more, the device keeps that many minus one threads of its own, asleep between calls. A device serves one call at a
/// time; programs that run many models at once give each its own device. Results do not depend on the number of
/// threads.
class Device {
 public:
  using Memory = HostMemory;

  /// Scratch memory of each thread in bytes: room for the packed blocks of a matrix product.
  static constexpr std::size_t scratch_bytes = std::size_t{2} << 20;

  explicit Device(Threads threads = {}) : count_(threads.count) {
    require(threads.count >= 1 && threads.count <= 1024, "Threads", threads.count, "1 to 1024");
    scratch_ = Memory(scratch_bytes * static_cast<std::size_t>(count_));
    workers_.reserve(static_cast<std::size_t>(count_ - 1));
    try {
      for (int thread = 1; thread < count_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (...) {
      stop();
      throw;
    }
  }
  ~Device() { stop(); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int threads() const { return count_; }

  /// Memory that belongs to `thread` while it runs a task; aligned to Arena::alignment.
  std::byte* scratch(int thread) const { return scratch_.data() + scratch_bytes * static_cast<std::size_t>(thread); }

  /// Calls task(index, thread) for each index in 0 … tasks - 1, on all threads, and returns when all are done. Which
  /// thread takes which index is open, so a task's result must not depend on it. Does not nest, allocates nothing.
  template <class Task>
  void parallel(Index tasks, const Task& task) {
    if (tasks <= 0) return;
    if (count_ == 1 || tasks == 1) {
      for (Index index = 0; index < tasks; ++index) task(index, 0);
      return;
    }
    task_ = std::addressof(task);
    call_ = [](const void* object, Index index, int thread) { (*static_cast<const Task*>(object))(index, thread); };
    tasks_ = tasks;
    next_.store(0, std::memory_order_relaxed);
    running_.store(count_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    run_tasks(0);
    for (int left = running_.load(std::memory_order_acquire); left != 0;
         left = running_.load(std::memory_order_acquire)) {
      wait_for_change(running_, left);
    }
  }

 private:
  void run_tasks(int thread) {
    for (Index index = next_.fetch_add(1, std::memory_order_relaxed); index < tasks_;
         index = next_.fetch_add(1, std::memory_order_relaxed)) {
      call_(task_, index, thread);
    }
  }

  /// Spins for some microseconds, the time between two operations of a step, then sleeps.
  template <class T>
  static void wait_for_change(const std::atomic<T>& value, T old) {
    for (int spin = 0; spin < 4000; ++spin) {
      if (value.load(std::memory_order_acquire) != old) return;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
    value.wait(old, std::memory_order_acquire);
  }

  void work(int thread) {
    for (std::uint32_t seen = 0;;) {
      wait_for_change(generation_, seen);
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      run_tasks(thread);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int count_ = 1;
  Memory scratch_;
  const void* task_ = nullptr;
  void (*call_)(const void*, Index, int) = nullptr;
  Index tasks_ = 0;
  std::atomic<Index> next_{0};
  std::atomic<int> running_{0};
  std::atomic<std::uint32_t> generation_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace moe_mamba::cpu
