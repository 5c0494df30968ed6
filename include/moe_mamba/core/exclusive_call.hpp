#pragma once

#include <atomic>
#include <string>

#include "moe_mamba/core/error.hpp"

namespace moe_mamba::inline v0_2 {

/// A call on an object that only one call may use at a time. Concurrent calls would deadlock or corrupt each other's memory:
/// the second throws instead, before doing anything.
class ExclusiveCall {
 public:
  /// Whether a call is running; a member of the object that is called. Copies and moved objects have their own.
  class Flag {
   public:
    Flag() = default;
    Flag(const Flag&) noexcept {}
    Flag& operator=(const Flag&) noexcept { return *this; }

   private:
    friend class ExclusiveCall;
    friend class ReadingCall;
    static constexpr int taken = -1;
    std::atomic<int> calls_{0};  // that only read; or taken
  };

  /// Throws std::logic_error if a call is running; `what` names the object.
  ExclusiveCall(Flag& flag, const char* what) : ExclusiveCall(&flag, what) {}
  /// Null: no object, such as an omitted argument.
  ExclusiveCall(Flag* flag, const char* what) : flag_(flag) {
    int none = 0;
    if (flag != nullptr &&
        !flag->calls_.compare_exchange_strong(none, Flag::taken, std::memory_order_acquire, std::memory_order_relaxed))
      refuse(what);
  }
  ~ExclusiveCall() {
    if (flag_ != nullptr) flag_->calls_.store(0, std::memory_order_release);
  }
  ExclusiveCall(const ExclusiveCall&) = delete;
  ExclusiveCall& operator=(const ExclusiveCall&) = delete;

 private:
  friend class ReadingCall;
  [[noreturn]] static void refuse(const char* what) {
    detail::raise<OrderError>(std::string("the ") + what +
                              " is in the middle of another call; allowed: one call at a time, so give each thread a " +
                              what + " of its own");
  }

  Flag* flag_;
};

/// A call that only reads: any number may run at a time, but none at the same time as an exclusive call.
class ReadingCall {
 public:
  /// Throws std::logic_error if an exclusive call is running.
  ReadingCall(ExclusiveCall::Flag& flag, const char* what) : flag_(flag) {
    int calls = flag.calls_.load(std::memory_order_relaxed);
    do {
      if (calls == ExclusiveCall::Flag::taken) ExclusiveCall::refuse(what);
    } while (
        !flag.calls_.compare_exchange_weak(calls, calls + 1, std::memory_order_acquire, std::memory_order_relaxed));
  }
  ~ReadingCall() { flag_.calls_.fetch_sub(1, std::memory_order_release); }
  ReadingCall(const ReadingCall&) = delete;
  ReadingCall& operator=(const ReadingCall&) = delete;

 private:
  ExclusiveCall::Flag& flag_;
};

}  // namespace moe_mamba::inline v0_2
