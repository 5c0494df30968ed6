#pragma once

#include <cstddef>
#include <cstring>
#include <new>
#include <utility>

#include "moe_mamba/core/standard.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace moe_mamba::inline v0_2 {

/// A block of uninitialised memory. Large blocks are aligned to 2 MiB and request pages of that size, with which reading
/// through weights is a third faster.
class HostMemory {
 public:
  HostMemory() = default;

  /// Aligned to at least 64 bytes. Throws std::bad_alloc.
  explicit HostMemory(std::size_t bytes) : bytes_(bytes), alignment_(bytes >= large ? huge_page : cache_line) {
    if (bytes == 0) return;
    data_ = static_cast<std::byte*>(::operator new (bytes, std::align_val_t{alignment_}));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    // Only a hint: without these pages the memory is just slower.
    if (alignment_ == huge_page) (void)madvise(data_, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
  }
  ~HostMemory() {
    if (data_ != nullptr) ::operator delete (data_, std::align_val_t{alignment_});
  }
  HostMemory(HostMemory&& other) noexcept { swap(other); }
  HostMemory& operator=(HostMemory&& other) noexcept {
    HostMemory moved(std::move(other));
    swap(moved);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

  /// Whether the host may read and write it directly.
  static constexpr bool on_host = true;

  /// Copies `bytes` bytes to memory of this kind from the host's, from it to the host's, and within it.
  static void write(void* to, const void* from, std::size_t bytes) { std::memmove(to, from, bytes); }
  static void read(void* to, const void* from, std::size_t bytes) { std::memmove(to, from, bytes); }
  static void copy(void* to, const void* from, std::size_t bytes) { std::memmove(to, from, bytes); }
  static void clear(void* to, std::size_t bytes) { std::memset(to, 0, bytes); }

 private:
  static constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20, large = 2 * huge_page;

  void swap(HostMemory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(alignment_, other.alignment_);
  }

  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  std::size_t alignment_ = cache_line;
};

}  // namespace moe_mamba::inline v0_2
