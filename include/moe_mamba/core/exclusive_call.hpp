#pragma once

#include <atomic>
#include <string>

#include "moe_mamba/core/error.hpp"

namespace moe_mamba::inline v0_2 {

/// A call on something that serves one call at a time. Two calls at once would wait for each other for ever, or work in
/// each other's memory: the second throws instead, before it has done anything.
class ExclusiveCall {
 public:
  /// Whether a call is going on. Belongs to what is called; a copy or a moved one has calls of its own.
  class Flag {
   public:
    Flag() = default;
    Flag(const Flag&) noexcept {}
    Flag& operator=(const Flag&) noexcept { return *this; }

   private:
    friend class ExclusiveCall;
    std::atomic<bool> taken_{false};
  };

  /// Throws std::logic_error where a call is going on; `what` is what serves it.
  ExclusiveCall(Flag& flag, const char* what) : ExclusiveCall(&flag, what) {}
  /// Null: there is nothing that could be called, as where an argument is left out.
  ExclusiveCall(Flag* flag, const char* what) : flag_(flag) {
    if (flag != nullptr && flag->taken_.exchange(true, std::memory_order_acquire)) {
      detail::raise<OrderError>(
          std::string("the ") + what +
          " is in the middle of another call; allowed: one call at a time, so give each thread a " + what +
          " of its own");
    }
  }
  ~ExclusiveCall() {
    if (flag_ != nullptr) flag_->taken_.store(false, std::memory_order_release);
  }
  ExclusiveCall(const ExclusiveCall&) = delete;
  ExclusiveCall& operator=(const ExclusiveCall&) = delete;

 private:
  Flag* flag_;
};

}  // namespace moe_mamba::inline v0_2
