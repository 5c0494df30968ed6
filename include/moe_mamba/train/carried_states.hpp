#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/runtime/array.hpp"

namespace moe_mamba::inline v0_2 {

/// The running states that a trainer carries from batch to batch, in the caller's memory or its own.
template <class Definition, StorageScalar S, class Backend>
class CarriedStates {
 public:
  using C = compute_t<S>;
  using Memory = typename Backend::Memory;
  static constexpr Index state_size = Definition::Body::state_size;

  /// In the caller's memory if that is not empty.
  explicit CarriedStates(SpanOf<C, Memory> memory = {}) : values_(memory), borrowed_(!memory.empty()) {}
  CarriedStates(const CarriedStates&) = delete;
  CarriedStates& operator=(const CarriedStates&) = delete;

  /// Reserves memory for the states of `count` sequences, keeping existing ones. Throws std::invalid_argument if
  /// `count` is out of range or the caller's memory is too small.
  void reserve(Index count) {
    const std::size_t wanted = size_of(count);
    if (wanted <= values_.size()) return;
    require(!borrowed_, "memory.states.size()", values_.size(), [&] {
      return std::to_string(wanted) + " or more for a batch of " + std::to_string(count) + " sequences, or empty";
    });
    Array<C, Memory> larger(wanted);
    if (const std::size_t kept = values().size(); kept > 0) {
      Memory::copy(larger.data(), values_.data(), kept * sizeof(C));
    }
    own_ = std::move(larger);
    values_ = own_.span();
  }

  /// Resets the states to those of `count` new sequences, for which memory is reserved.
  void begin(Backend& device, Index count) {
    count_ = count;
    PassesOf<Definition, S, Backend>::get().clear(device, values_.data(), count * state_size);
  }

  /// Whether they are the final states of a batch, which another one may continue.
  bool are_carried() const { return are_carried_; }
  void set_carried(bool carried) { are_carried_ = carried; }

  Index count() const { return count_; }
  SpanOf<C, Memory> values() const { return values_.first(size_of(count_)); }
  StateView<C> view() const { return {values_.data(), state_size}; }

  /// Sets the states from these numbers in host memory, for which memory is reserved.
  void write(std::span<const C> values) {
    count_ = state_size > 0 ? static_cast<Index>(values.size()) / state_size : 0;
    are_carried_ = !values.empty();
    if (are_carried_) Memory::write(values_.data(), values.data(), values.size_bytes());
  }

 private:
  static std::size_t size_of(Index count) {
    constexpr Index most = (Index{1} << 48) / (state_size > 0 ? state_size : 1);
    require(count <= most, "shape.batch", count, [] { return "0 to " + std::to_string(most) + " sequences"; });
    return static_cast<std::size_t>(count * state_size);
  }

  Array<C, Memory> own_;
  SpanOf<C, Memory> values_;  // states of at least count_ sequences
  bool borrowed_;
  Index count_ = 0;
  bool are_carried_ = false;
};

}  // namespace moe_mamba::inline v0_2
