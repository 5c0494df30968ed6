#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/runtime/backend.hpp"
#include "moe_mamba/runtime/memory.hpp"
#include "moe_mamba/runtime/recording.hpp"

namespace moe_mamba::inline v0_2::cpu {

/// Where the operations of this folder run: a pool of threads, each with scratch memory. During a pass that memory is
/// the workspace's, otherwise the device's own, which is allocated on first use.
///
/// Every operation takes a device as its first argument. With one thread (the default) everything runs on the calling
/// thread; with n, the device owns n - 1 more, which sleep between calls. A device serves one call at a time; programs
/// that run several models concurrently give each its own device. Calls on models enforce this: the second of two
/// concurrent calls throws std::logic_error. Results do not depend on the number of threads.
class Device {
 public:
  using Memory = HostMemory;
  template <class S>
  using Activation = compute_t<S>;
  using Recording = DirectRecording;

  /// Upper bound on the scratch memory that an operation uses per thread, in bytes.
  static constexpr std::size_t thread_scratch_bytes = std::size_t{2} << 20;

  explicit Device(Threads threads = {}) : count_(threads.count) {
    require(threads.count >= 1 && threads.count <= 1024, "Threads", threads.count, "1 to 1024");
    workers_.reserve(static_cast<std::size_t>(count_ - 1));
    struct Stop {  // joins the threads already started if another cannot be
      Device* device;
      ~Stop() {
        if (device != nullptr) device->stop();
      }
    } guard{this};
    for (int thread = 1; thread < count_; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    guard.device = nullptr;
  }
  ~Device() { stop(); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int threads() const { return count_; }

  /// Whether a call on a model is running here; see core/exclusive_call.hpp.
  ExclusiveCall::Flag& in_use() const { return in_use_; }

  /// Memory of each thread for the tasks of one operation; aligned to Arena::alignment.
  struct ThreadScratch {
    std::byte* data = nullptr;
    std::size_t bytes = 0;  ///< per thread
    std::byte* operator()(int thread) const { return data + bytes * static_cast<std::size_t>(thread); }
  };

  /// At least `bytes` bytes per thread, for `bytes` up to thread_scratch_bytes, valid until the next operation: the
  /// lent memory or, if that is too small, the device's own. Throws std::bad_alloc.
  ThreadScratch thread_scratch(std::size_t bytes) {
    if (bytes <= lent_.bytes) return lent_;
    reserve_thread_scratch();
    return {own_.data(), thread_scratch_bytes};
  }

  /// Allocates the device's own scratch memory unless it is there already, so that no operation has to. Throws
  /// std::bad_alloc.
  void reserve_thread_scratch() {
    if (own_.size() == 0) own_ = Memory(thread_scratch_bytes * static_cast<std::size_t>(count_));
  }

  /// Lends memory to the device's threads, for the lifetime of this object.
  class ScratchLoan {
   public:
    ScratchLoan(Device& device, ThreadScratch scratch) : device_(device), before_(device.lent_) {
      device.lent_ = scratch;
    }
    ~ScratchLoan() { device_.lent_ = before_; }
    ScratchLoan(const ScratchLoan&) = delete;
    ScratchLoan& operator=(const ScratchLoan&) = delete;

   private:
    Device& device_;
    ThreadScratch before_;
  };

  /// Calls task(index, thread) for each index in 0 … tasks - 1, on all threads, and returns when all are done. Which
  /// thread takes which index is unspecified, so a task's result must not depend on it. Does not nest; allocates
  /// nothing. On a device with several threads, throws std::logic_error if called while a call of another thread is
  /// running.
  ///
  /// If tasks throw, the first exception is rethrown here once no task is running; the remaining tasks may or may not
  /// have run.
  ///
  /// Does not wait for threads that the system has yet to schedule: the others do their share.
  template <class Task>
  void parallel(Index tasks, const Task& task) {
    parallel(tasks, std::addressof(task), run_tasks<Task>);
  }

 private:
  /// Does the tasks begin … end - 1.
  using RunTasks = void(const void* task, Index begin, Index end, int thread);

  /// A function of its own, so that a task is compiled once, for one thread and for several.
  template <class Task>
  [[gnu::noinline]] static void run_tasks(const void* task, Index begin, Index end, int thread) {
    for (Index index = begin; index < end; ++index) (*static_cast<const Task*>(task))(index, thread);
  }

  void parallel(Index tasks, const void* task, RunTasks* do_tasks) {
    if (tasks <= 0) return;
    if (count_ == 1 || tasks == 1) return do_tasks(task, 0, tasks, 0);
    const ExclusiveCall call(in_parallel_, "device");
    for (Index first = 0; first < tasks; first += Turn::most) {
      task_ = task;
      run_tasks_ = do_tasks;
      first_ = first;
      run(std::min(Turn::most, tasks - first));
      rethrow();
    }
  }

  /// The call's number and the number of tasks not yet taken, shared by all threads and packed in one word, so that a
  /// late thread cannot take a task of the next call by mistake.
  struct Turn {
    static constexpr int bits = 32;
    static constexpr Index most = (Index{1} << bits) - 1;
    std::uint64_t word;

    static Turn of(std::uint32_t call, Index left) {
      return {(std::uint64_t{call} << bits) | static_cast<std::uint64_t>(left)};
    }
    std::uint32_t call() const { return static_cast<std::uint32_t>(word >> bits); }
    Index left() const { return static_cast<Index>(word & static_cast<std::uint64_t>(most)); }
  };

  /// Runs a call of up to Turn::most tasks.
  void run(Index tasks) {
    const std::uint32_t call = call_number_.load(std::memory_order_relaxed) + 1;
    unfinished_.store(static_cast<std::uint32_t>(tasks), std::memory_order_relaxed);
    turn_.store(Turn::of(call, tasks).word, std::memory_order_release);
    call_number_.store(call, std::memory_order_release);
    call_number_.notify_all();
    take_tasks(call, 0);
    for (std::uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0;
         left = unfinished_.load(std::memory_order_acquire)) {
      wait_for_change(unfinished_, left);
    }
  }

  /// Takes tasks of a call, last one first, until none is left. A thread that has taken one may read the call's
  /// members: parallel() does not return before that task is done.
  void take_tasks(std::uint32_t call, int thread) {
    Turn turn{turn_.load(std::memory_order_acquire)};
    while (turn.call() == call && turn.left() > 0) {
      if (!turn_.compare_exchange_weak(turn.word, turn.word - 1, std::memory_order_acquire)) continue;
      do_task(first_ + turn.left() - 1, thread);
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
      turn.word = turn_.load(std::memory_order_acquire);
    }
  }

#if defined(__cpp_exceptions)
  void do_task(Index index, int thread) {
    try {
      run_tasks_(task_, index, index + 1, thread);
    } catch (...) {
      if (!failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
    }
  }
  void rethrow() {
    if (!failed_.load(std::memory_order_relaxed)) return;
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
#else
  void do_task(Index index, int thread) { run_tasks_(task_, index, index + 1, thread); }
  void rethrow() {}
#endif

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
      wait_for_change(call_number_, seen);
      seen = call_number_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      take_tasks(seen, thread);
    }
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    call_number_.fetch_add(1, std::memory_order_release);
    call_number_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  mutable ExclusiveCall::Flag in_use_;
  ExclusiveCall::Flag in_parallel_;
  int count_ = 1;
  Memory own_;          // scratch of all threads; empty until first used
  ThreadScratch lent_;  // takes precedence over own_
  const void* task_ = nullptr;
  RunTasks* run_tasks_ = nullptr;
  Index first_ = 0;
  std::atomic<std::uint64_t> turn_{0};
  std::atomic<std::uint32_t> unfinished_{0};  // 32 bits, as call_number_, for a futex
  std::atomic<std::uint32_t> call_number_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};  // whether a task of this call has thrown
  std::exception_ptr failure_;       // the first exception thrown
  std::vector<std::thread> workers_;
};

}  // namespace moe_mamba::inline v0_2::cpu
