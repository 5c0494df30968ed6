#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::inline v0_2::detail {

/// A 64-bit hash of all bytes. Four independent chains of multiplications, so it is limited by memory bandwidth.
inline std::uint64_t hash_bytes(std::span<const std::byte> bytes, std::uint64_t seed) {
  constexpr std::uint64_t factor = 0x9E3779B97F4A7C15u;
  const auto mix = [](std::uint64_t& state, std::uint64_t word) {
    state = (state ^ word) * factor;
    state ^= state >> 29;
  };
  std::array<std::uint64_t, 4> state = {seed, ~seed, seed + factor, seed - factor};
  constexpr std::size_t block = sizeof(state);
  std::array<std::uint64_t, 4> words;
  std::size_t at = 0;
  for (; at + block <= bytes.size(); at += block) {
    std::memcpy(words.data(), bytes.data() + at, block);
    for (std::size_t lane = 0; lane < 4; ++lane) mix(state[lane], words[lane]);
  }
  words = {};
  if (at < bytes.size()) std::memcpy(words.data(), bytes.data() + at, bytes.size() - at);
  std::uint64_t hash = bytes.size();
  for (std::size_t lane = 0; lane < 4; ++lane) {
    mix(state[lane], words[lane]);
    mix(hash, state[lane]);
  }
  return hash;
}

inline std::uint64_t hash_text(std::string_view text, std::uint64_t seed) {
  return hash_bytes(std::as_bytes(std::span<const char>(text)), seed);
}

/// Sixteen hexadecimal digits.
inline std::string hexadecimal(std::uint64_t value) {
  std::string text;
  for (int digit = 15; digit >= 0; --digit) text += "0123456789abcdef"[(value >> (4 * digit)) & 15];
  return text;
}

}  // namespace moe_mamba::inline v0_2::detail
