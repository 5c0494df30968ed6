#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/runtime/memory.hpp"

/// Arrays in a backend's kind of memory, and views of them.
namespace moe_mamba::inline v0_2 {

/// A contiguous range of a device's memory, which the host must not access, unlike that of a std::span.
template <class T>
class DeviceSpan {
 public:
  constexpr DeviceSpan() = default;
  constexpr DeviceSpan(T* data, std::size_t size) : data_(data), size_(size) {}
  template <class From>
  requires(std::is_same_v<const From, T>) constexpr DeviceSpan(DeviceSpan<From> other)
      : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const { return data_; }
  constexpr std::size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr DeviceSpan first(std::size_t count) const { return {data_, count}; }
  constexpr DeviceSpan subspan(std::size_t offset, std::size_t count) const { return {data_ + offset, count}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

/// A view of a kind of memory: std::span for the host's, otherwise DeviceSpan.
template <class T, class Memory>
using SpanOf = std::conditional_t<Memory::on_host, std::span<T>, DeviceSpan<T>>;

/// An array of numbers in a kind of memory, initially zero.
///
/// read(), write(), clear() and copies return when they are done. They do not wait for work that was queued in a
/// device's stream: synchronize the device first if there is any.
template <class T, class Memory>
class Array {
 public:
  Array() = default;

  /// Throws std::bad_alloc, or the backend's own error.
  explicit Array(std::size_t size) : memory_(size * sizeof(T)), size_(size) { clear(); }

  Array(const Array& other) : memory_(other.size_ * sizeof(T)), size_(other.size_) {
    if (size_ > 0) Memory::copy(memory_.data(), other.memory_.data(), size_ * sizeof(T));
  }
  Array(Array&& other) noexcept : memory_(std::move(other.memory_)), size_(std::exchange(other.size_, 0)) {}
  Array& operator=(Array other) noexcept {
    memory_ = std::move(other.memory_);
    size_ = other.size_;
    return *this;
  }

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return reinterpret_cast<T*>(memory_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data()); }

  SpanOf<T, Memory> span() { return {data(), size_}; }
  SpanOf<const T, Memory> span() const { return {data(), size_}; }
  operator SpanOf<T, Memory>() { return span(); }
  operator SpanOf<const T, Memory>() const { return span(); }

  /// Copies all elements from or to the host. Throws std::invalid_argument unless the sizes are equal.
  void write(std::span<const T> values) {
    check(values.size());
    if (size_ > 0) Memory::write(memory_.data(), values.data(), values.size_bytes());
  }
  void read(std::span<T> values) const {
    check(values.size());
    if (size_ > 0) Memory::read(values.data(), memory_.data(), values.size_bytes());
  }
  void clear() {
    if (size_ > 0) Memory::clear(memory_.data(), size_ * sizeof(T));
  }

 private:
  void check(std::size_t size) const {
    require(size == size_, "values.size()", size, [&] { return std::to_string(size_); });
  }

  Memory memory_;
  std::size_t size_ = 0;
};

/// Zeros in the caller's memory or, if that is empty, in memory that it owns. Throws std::invalid_argument if the caller's
/// memory has another size.
template <class T, class Memory>
class Zeros {
 public:
  Zeros() = default;
  Zeros(const char* name, SpanOf<T, Memory> memory, std::size_t size) : values_(memory) {
    if (memory.empty()) {
      own_ = Array<T, Memory>(size);
      values_ = own_.span();
      return;
    }
    require(memory.size() == size, name, memory.size(), [&] { return std::to_string(size) + ", or empty"; });
    Memory::clear(values_.data(), size * sizeof(T));
  }
  Zeros(const Zeros&) = delete;
  Zeros& operator=(const Zeros&) = delete;

  T* data() const { return values_.data(); }
  std::size_t size() const { return values_.size(); }
  SpanOf<T, Memory> span() const { return values_; }
  /// Copies equally many numbers from the host.
  void write(std::span<const T> values) const {
    if (!values.empty()) Memory::write(values_.data(), values.data(), values.size_bytes());
  }

 private:
  Array<T, Memory> own_;
  SpanOf<T, Memory> values_;
};

/// Numbers that the host can read: borrowed if they are in its memory, otherwise copied to it.
template <class T>
class HostNumbers {
 public:
  HostNumbers() = default;

  /// Borrows.
  HostNumbers(std::span<const T> values) : values_(values) {}
  HostNumbers(const std::vector<T>& values) : values_(values) {}

  /// Copies from another kind of memory.
  template <class Memory>
  static HostNumbers of(SpanOf<const T, Memory> values) {
    if constexpr (Memory::on_host) {
      return HostNumbers(values);
    } else {
      HostNumbers numbers;
      numbers.own_.resize(values.size());
      if (!values.empty()) Memory::read(numbers.own_.data(), values.data(), values.size() * sizeof(T));
      numbers.values_ = numbers.own_;
      return numbers;
    }
  }

  HostNumbers(HostNumbers&&) noexcept = default;  // moving a vector keeps the address of its elements
  HostNumbers& operator=(HostNumbers&&) noexcept = default;

  std::span<const T> span() const { return values_; }
  operator std::span<const T>() const { return values_; }
  const T& operator[](std::size_t index) const { return values_[index]; }
  auto begin() const { return values_.begin(); }
  auto end() const { return values_.end(); }
  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }

 private:
  std::vector<T> own_;
  std::span<const T> values_;
};

}  // namespace moe_mamba::inline v0_2
