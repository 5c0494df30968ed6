#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

/// Counts every allocation through operator new of the program that includes this.
namespace test {

inline std::atomic<long> allocation_count{0};

/// Allocations since it was made.
class AllocationCounter {
 public:
  AllocationCounter() : before_(allocation_count.load()) {}
  long count() const { return allocation_count.load() - before_; }

 private:
  long before_;
};

inline void* counted_allocation(std::size_t bytes, std::size_t alignment) {
  ++allocation_count;
  // aligned_alloc wants a multiple of the alignment.
  void* memory = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace test

// Not inlined: g++ would see new and free side by side and warn of a mismatch. Weak, for programs of many files.

[[gnu::noinline, gnu::weak]] void* operator new(std::size_t bytes) {
  return test::counted_allocation(bytes, alignof(std::max_align_t));
}
[[gnu::noinline, gnu::weak]] void* operator new[](std::size_t bytes) {
  return test::counted_allocation(bytes, alignof(std::max_align_t));
}
[[gnu::noinline, gnu::weak]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return test::counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline, gnu::weak]] void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return test::counted_allocation(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline, gnu::weak]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return test::counted_allocation(bytes, alignof(std::max_align_t));
}
[[gnu::noinline, gnu::weak]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return test::counted_allocation(bytes, alignof(std::max_align_t));
}
[[gnu::noinline, gnu::weak]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline, gnu::weak]] void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline, gnu::weak]] void operator delete(void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
[[gnu::noinline, gnu::weak]] void operator delete[](void* memory, const std::nothrow_t&) noexcept { std::free(memory); }
