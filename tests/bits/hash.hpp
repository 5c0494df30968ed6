#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/scalar.hpp"

namespace test::bits {

/// The 64-bit hash FNV-1a (Fowler, Noll and Vo) of the bytes of numbers.
class Hash {
 public:
  template <class T>
  Hash& add(std::span<const T> values) {
    static_assert(std::is_arithmetic_v<T> || std::is_same_v<T, moe_mamba::bfloat16>, "numbers, which have no padding");
    for (const T& value : values) {
      unsigned char bytes[sizeof(T)];
      std::memcpy(bytes, &value, sizeof(T));
      for (const unsigned char byte : bytes) value_ = (value_ ^ byte) * 0x100000001b3u;
    }
    return *this;
  }
  template <class T>
  Hash& add(const std::vector<T>& values) {
    return add(std::span<const T>(values));
  }
  template <class T>
  requires std::is_arithmetic_v<T> Hash& add(T value) { return add(std::span<const T>(&value, 1)); }

  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

}  // namespace test::bits
