#pragma once

#include <cstddef>
#include <cstdint>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"

namespace moe_mamba::inline v0_2 {

/// A bump allocator: sub-allocates one block of memory, each allocation aligned to 64 bytes (a cache line).
///
/// An arena is a value: a copy continues where the original stood, and what it took is free again when the copy is gone, so
/// a function that takes its arena by value needs no release. An arena without memory only counts: structs of buffers
/// are built once on a counting arena to learn their size, and again on a real one to be used; the two cannot disagree.
class Arena {
 public:
  static constexpr std::size_t alignment = 64;

  /// A counting arena: every allocation is null, used() is the number of bytes that a real one must have.
  constexpr Arena() = default;

  /// `base` must be aligned to `alignment` and hold as many bytes as a counting arena has used.
  constexpr explicit Arena(std::byte* base) : base_(base) {}

  /// Room for `count` uninitialised elements.
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

  /// This arena, `bytes` (a multiple of the alignment) further on, as if that much had been allocated.
  constexpr Arena advanced(std::size_t bytes) const {
    Arena arena = *this;
    arena.used_ += bytes;
    return arena;
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
};

/// Bytes that a struct of buffers takes: `Buffers` is built from a counting arena and `arguments`.
template <class Buffers, class... Arguments>
constexpr std::size_t bytes_of(Arguments&&... arguments) {
  Arena counting;
  (void)Buffers(counting, arguments...);
  return counting.used();
}

}  // namespace moe_mamba::inline v0_2
