#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"

namespace moe_mamba {

/// Running states of one or more sequences: one block of plain numbers, state_size of them for each sequence, one
/// sequence after the other. A value: copies are independent of each other, so a state can be kept, forked, compared,
/// sent or restored; its numbers may be copied as bytes. A new state is zero: nothing read so far.
///
/// The same type holds the gradients by states.
template <class Definition, StorageScalar S = float>
class States {
 public:
  using Scalar = compute_t<S>;
  static constexpr Index state_size = Definition::Body::state_size;  ///< scalars of one sequence

  /// States of `count` sequences in memory of their own.
  explicit States(Index count = 1) : count_(checked(count)), own_(static_cast<std::size_t>(count * state_size)) {
    values_ = own_;
  }

  /// States of `count` sequences in the caller's memory, which must outlive them and is taken as it is; reset() clears
  /// it.
  States(std::span<Scalar> memory, Index count) : count_(checked(count)), values_(memory) {
    require(static_cast<Index>(memory.size()) == count * state_size, "memory.size()", memory.size(),
            [&] { return std::to_string(count * state_size) + ", the count times state_size"; });
  }

  /// A copy has memory of its own, wherever the other's lies.
  States(const States& other) : count_(other.count_), own_(other.values_.begin(), other.values_.end()) {
    values_ = own_;
  }

  /// Copies the numbers into this object's memory; both must be of as many sequences.
  States& operator=(const States& other) {
    require(other.count_ == count_, "count()", other.count_,
            [&] { return std::to_string(count_) + ", as the target's"; });
    if (this != &other) std::copy(other.values_.begin(), other.values_.end(), values_.begin());
    return *this;
  }

  Index count() const { return count_; }

  std::span<Scalar> values() { return values_; }
  std::span<const Scalar> values() const { return values_; }

  /// The state of one sequence.
  std::span<Scalar> sequence(Index index) {
    require_range(index >= 0 && index < count_, "index", index, [&] { return "0 to " + std::to_string(count_ - 1); });
    return values_.subspan(static_cast<std::size_t>(index * state_size), static_cast<std::size_t>(state_size));
  }
  std::span<const Scalar> sequence(Index index) const { return const_cast<States*>(this)->sequence(index); }

  /// Back to nothing read.
  void reset() { std::fill(values_.begin(), values_.end(), Scalar(0)); }
  void reset(Index index) {
    const auto state = sequence(index);
    std::fill(state.begin(), state.end(), Scalar(0));
  }

  StateView<Scalar> view() { return {values_.data(), state_size}; }

  /// Equal numbers.
  friend bool operator==(const States& a, const States& b) {
    return std::equal(a.values_.begin(), a.values_.end(), b.values_.begin(), b.values_.end());
  }

 private:
  static Index checked(Index count) {
    constexpr Index most = (Index{1} << 48) / (state_size > 0 ? state_size : 1);
    require(count >= 1 && count <= most, "count", count, [] { return "1 to " + std::to_string(most) + " sequences"; });
    return count;
  }

  Index count_;
  std::vector<Scalar> own_;
  std::span<Scalar> values_;
};

}  // namespace moe_mamba
