#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

/// Counts every allocation through operator new in a program that includes this, and can make one fail.
namespace test {

inline std::atomic<long> allocation_count{0};
inline std::atomic<std::size_t> allocation_bytes{0};    // in total, including those that have been freed
inline std::atomic<long> allocations_until_failure{0};  // 0: none fails

/// The number of allocations since its construction.
class AllocationCounter {
 public:
  AllocationCounter() : before_(allocation_count.load()), bytes_before_(allocation_bytes.load()) {}
  long count() const { return allocation_count.load() - before_; }
  /// In total, including those that have been freed.
  std::size_t bytes() const { return allocation_bytes.load() - bytes_before_; }

 private:
  long before_;
  std::size_t bytes_before_;
};

/// Makes the n-th allocation from now on throw std::bad_alloc, once, unless the scope ends first.
class FailingAllocation {
 public:
  explicit FailingAllocation(long n) { allocations_until_failure = n; }
  ~FailingAllocation() { allocations_until_failure = 0; }
  FailingAllocation(const FailingAllocation&) = delete;
  FailingAllocation& operator=(const FailingAllocation&) = delete;
};

/// Runs `call` on a fresh `make()` once for every allocation that it makes, with that one failing; after each failure
/// `check(object)` must find the object unchanged. Ends with the run in which none fails, and returns the number of
/// failures.
template <class Make, class Call, class Check>
long fail_each_allocation(const Make& make, const Call& call, const Check& check) {
  for (long n = 1;; ++n) {
    auto object = make();
    bool failed = false;
    try {
      const FailingAllocation failure(n);
      call(object);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    if (!failed) return n - 1;
    check(object);
  }
}

inline void* counted_allocation(std::size_t bytes, std::size_t alignment) {
  ++allocation_count;
  allocation_bytes += bytes;
  if (allocations_until_failure.load(std::memory_order_relaxed) > 0 && --allocations_until_failure == 0) {
    throw std::bad_alloc();
  }
  // aligned_alloc requires a multiple of the alignment.
  void* memory = std::aligned_alloc(alignment, (bytes + alignment) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace test

// Not inlined: otherwise g++ sees new paired with free and warns of a mismatch. Weak, for programs of several files.

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
  try {
    return test::counted_allocation(bytes, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline, gnu::weak]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return test::counted_allocation(bytes, alignof(std::max_align_t));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
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
