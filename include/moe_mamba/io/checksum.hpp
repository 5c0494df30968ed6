#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "moe_mamba/io/safetensors.hpp"

/// A checksum of the tensors and metadata of a file, stored in its metadata: the format has none, and a flipped bit in
/// a weight would go unnoticed. It detects corruption, not tampering. Model files without one are accepted.
namespace moe_mamba::inline v0_2::detail {

inline constexpr const char* checksum_key = "moe_mamba.checksum";

/// A 64-bit hash of all bytes. Four independent chains of multiplications, so that memory bandwidth is the limit.
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

/// As sixteen hexadecimal digits.
inline std::string hexadecimal(std::uint64_t value) {
  std::string text;
  for (int digit = 15; digit >= 0; --digit) text += "0123456789abcdef"[(value >> (4 * digit)) & 15];
  return text;
}

/// The checksum of the names and data of tensors, in any order, and of all metadata except the checksum itself. T is
/// TensorSource or TensorEntry.
template <class T>
std::string checksum(std::span<const T> tensors, const std::map<std::string, std::string>& metadata) {
  std::uint64_t sum = 0;
  for (const T& tensor : tensors) sum += hash_bytes(tensor.data, hash_text(tensor.name, 0));
  for (const auto& [key, value] : metadata) {
    if (key != checksum_key) sum += hash_text(value, hash_text(key, 1));
  }
  return hexadecimal(sum);
}

/// The metadata with the checksum of these tensors added.
inline std::map<std::string, std::string> with_checksum(std::map<std::string, std::string> metadata,
                                                        std::span<const TensorSource> tensors) {
  metadata[checksum_key] = checksum(tensors, metadata);
  return metadata;
}

/// Throws std::runtime_error if a file has a checksum that is not that of its contents.
inline void check_checksum(const SafetensorsFile& file) {
  const auto stored = file.metadata().find(checksum_key);
  if (stored == file.metadata().end()) return;
  const std::string actual = checksum(std::span<const TensorEntry>(file.tensors()), file.metadata());
  if (actual == stored->second) return;
  throw_content_error(file.path().string(), "the checksum of tensors and metadata", actual,
                      in_quotes(stored->second) + ", as metadata \"" + checksum_key +
                          "\" says; the file is damaged (or was edited, and that entry should be removed)");
}

}  // namespace moe_mamba::inline v0_2::detail
