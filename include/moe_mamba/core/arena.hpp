#pragma once

#include <cstddef>
#include <cstdint>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// A bump allocator: sub-allocates one block of memory, each allocation aligned to 64 bytes (a cache line).
///
/// An arena is a value: a copy continues from the original's position and leaves the original unchanged, so that memory which a
/// function allocates from an arena passed by value is released when it returns. An arena without memory only counts: structs
/// of buffers are constructed once on a counting arena to determine their size, and again on a real one; the two cannot differ.
class Arena {
 public:
  static constexpr std::size_t alignment = 64;

  /// A counting arena: every allocation is null, used() is the number of bytes that a real one must have.
  constexpr Arena() = default;

  /// `base` must be aligned to `alignment` and have as many bytes as a counting arena has used.
  constexpr explicit Arena(std::byte* base) : base_(base) {}

  /// Allocates `count` uninitialised elements.
  template <class T>
  constexpr T* take(Index count) {
    const std::size_t offset = used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + offset);
  }

  /// The same as a matrix.
  template <class T>
  constexpr MatrixView<T> rows(Index count, Index columns) {
    return matrix(take<T>(count * columns), count, columns);
  }

  /// An arena over the next `bytes` bytes, for an operation that divides its scratch memory itself.
  constexpr Arena block(std::size_t bytes) {
    const Arena block = *this;
    used_ += bytes;
    return block;
  }

  /// Bytes allocated so far, padding included.
  constexpr std::size_t used() const { return used_; }

  /// This arena after an allocation of `bytes`, a multiple of the alignment.
  constexpr Arena advanced(std::size_t bytes) const {
    Arena arena = *this;
    arena.used_ += bytes;
    return arena;
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
};

/// The number of bytes of a struct of buffers: `Buffers` is constructed from a counting arena and `arguments`.
template <class Buffers, class... Arguments>
constexpr std::size_t bytes_of(Arguments&&... arguments) {
  Arena counting;
  (void)Buffers(counting, arguments...);
  return counting.used();
}

}  // namespace moe_mamba::inline v0_2
