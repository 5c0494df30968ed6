#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/runtime/memory.hpp"

namespace moe_mamba::inline v0_2 {

/// Running states of any number of sequences: one array with state_size numbers for each sequence, in the same layout
/// on every backend. It is a value: copies are independent, so that a state can be saved, forked, compared, sent or
/// restored; its numbers may be copied as bytes. A new state is zero, as before the first token. Only one call may use
/// an object at a time: while a model's call uses it, another call, and changing or copying its numbers, throw
/// std::logic_error before doing anything. Any number of threads may copy from an object at a time. values(),
/// sequence() and comparisons do not check this.
///
/// The same type holds gradients with respect to states. `Memory` is the backend's (see `Model<…>::StatesType`). On a
/// device, calls return when they are done and do not wait for work queued in a stream (see runtime/array.hpp).
template <class Definition, StorageScalar S = float, class Memory = HostMemory>
class States {
 public:
  using Scalar = compute_t<S>;
  static constexpr Index state_size = Definition::Body::state_size;  ///< scalars of one sequence

  /// States of `count` sequences in their own memory.
  explicit States(Index count = 1) : count_(checked(count)), own_(elements(count_)) { values_ = own_.span(); }

  /// States of `count` sequences in the caller's memory, with its values; it must outlive them.
  States(SpanOf<Scalar, Memory> memory, Index count) : count_(checked(count)), values_(memory) {
    require(static_cast<Index>(memory.size()) == count * state_size, "memory.size()", memory.size(),
            [&] { return std::to_string(count * state_size) + ", the count times state_size"; });
  }

  /// A copy owns its memory, even if the original borrows it.
  States(const States& other) : States(other.count_) {
    const ReadingCall reading(other.in_use_, "States object");
    copy(other);
  }

  /// Copies the numbers into this object's memory; both must have the same number of sequences.
  States& operator=(const States& other) {
    require(other.count_ == count_, "count()", other.count_,
            [&] { return std::to_string(count_) + ", as the target's"; });
    if (this == &other) return *this;
    const ExclusiveCall call(in_use_, "States object");
    const ReadingCall reading(other.in_use_, "States object");
    copy(other);
    return *this;
  }

  Index count() const { return count_; }

  SpanOf<Scalar, Memory> values() { return values_; }
  SpanOf<const Scalar, Memory> values() const { return values_; }

  /// The state of one sequence.
  SpanOf<Scalar, Memory> sequence(Index index) {
    require_range(index >= 0 && index < count_, "index", index,
                  [&] { return detail::range_text<Index>(0, count_ - 1); });
    return values_.subspan(static_cast<std::size_t>(index * state_size), static_cast<std::size_t>(state_size));
  }
  SpanOf<const Scalar, Memory> sequence(Index index) const { return const_cast<States*>(this)->sequence(index); }

  /// Copies all numbers from or to the host. Throws std::invalid_argument unless the sizes are equal.
  void write(std::span<const Scalar> values) {
    check(values.size());
    const ExclusiveCall call(in_use_, "States object");
    if (!values.empty()) Memory::write(values_.data(), values.data(), values.size_bytes());
  }
  void read(std::span<Scalar> values) const {
    check(values.size());
    const ReadingCall reading(in_use_, "States object");
    if (!values.empty()) Memory::read(values.data(), values_.data(), values.size_bytes());
  }

  /// Sets all states to zero, as before the first token.
  void reset() {
    const ExclusiveCall call(in_use_, "States object");
    if (!values_.empty()) Memory::clear(values_.data(), values_.size() * sizeof(Scalar));
  }
  void reset(Index index) {
    const auto state = sequence(index);
    const ExclusiveCall call(in_use_, "States object");
    if (!state.empty()) Memory::clear(state.data(), state.size() * sizeof(Scalar));
  }

  /// Whether all numbers are finite: a NaN or an infinity that has entered a state stays in it.
  bool is_finite() const {
    const ReadingCall reading(in_use_, "States object");
    return finite(values_);
  }
  /// The same for one sequence. Throws std::out_of_range for an invalid index.
  bool is_finite(Index index) const {
    const auto state = sequence(index);
    const ReadingCall reading(in_use_, "States object");
    return finite(state);
  }

  /// The exclusive access that a call on these states holds while it runs.
  ExclusiveCall::Flag& in_use() const { return in_use_; }

  StateView<Scalar> view() { return {values_.data(), state_size}; }

  /// Equal numbers.
  friend bool operator==(const States& a, const States& b) requires Memory::on_host {
    return std::equal(a.values_.begin(), a.values_.end(), b.values_.begin(), b.values_.end());
  }

 private:
  static Index checked(Index count) {
    constexpr Index most = (Index{1} << 48) / (state_size > 0 ? state_size : 1);
    require(count >= 0 && count <= most, "count", count, [] { return "0 to " + std::to_string(most) + " sequences"; });
    return count;
  }

  static constexpr std::size_t elements(Index count) {
    return count > 0 ? static_cast<std::size_t>(count) * static_cast<std::size_t>(state_size) : 0;
  }

  static bool finite(SpanOf<const Scalar, Memory> values) {
    const auto numbers = HostNumbers<Scalar>::template of<Memory>(values);
    return std::all_of(numbers.begin(), numbers.end(), [](Scalar value) { return std::isfinite(value); });
  }

  void check(std::size_t size) const {
    require(size == values_.size(), "values.size()", size,
            [&] { return std::to_string(values_.size()) + ", the count times state_size"; });
  }

  void copy(const States& other) {
    if (!values_.empty()) Memory::copy(values_.data(), other.values_.data(), values_.size() * sizeof(Scalar));
  }

  mutable ExclusiveCall::Flag in_use_;
  Index count_;
  Array<Scalar, Memory> own_;
  SpanOf<Scalar, Memory> values_;
};

}  // namespace moe_mamba::inline v0_2
