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

/// A checksum of the tensors and metadata of a file, kept in its metadata: the format has none, and a flipped bit in a
/// weight would go unnoticed. It tells damage, not malice. Files of weights without one are taken as they are.
namespace moe_mamba::detail {

inline constexpr const char* checksum_key = "moe_mamba.checksum";

/// 64 bits that depend on every byte. Four chains of multiplications, so that reading is what takes the time.
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

/// Sixteen digits.
inline std::string hexadecimal(std::uint64_t value) {
  std::string text;
  for (int digit = 15; digit >= 0; --digit) text += "0123456789abcdef"[(value >> (4 * digit)) & 15];
  return text;
}

/// Of tensors in any order, names and data, and of all metadata but the checksum. T is a TensorSource or a TensorEntry.
template <class T>
std::string checksum(std::span<const T> tensors, const std::map<std::string, std::string>& metadata) {
  std::uint64_t sum = 0;
  for (const T& tensor : tensors) sum += hash_bytes(tensor.data, hash_text(tensor.name, 0));
  for (const auto& [key, value] : metadata) {
    if (key != checksum_key) sum += hash_text(value, hash_text(key, 1));
  }
  return hexadecimal(sum);
}

/// The metadata and the checksum of these tensors.
inline std::map<std::string, std::string> with_checksum(std::map<std::string, std::string> metadata,
                                                        std::span<const TensorSource> tensors) {
  metadata[checksum_key] = checksum(tensors, metadata);
  return metadata;
}

/// Throws std::runtime_error where a file has a checksum that is not that of its contents.
inline void check_checksum(const SafetensorsFile& file) {
  const auto stored = file.metadata().find(checksum_key);
  if (stored == file.metadata().end()) return;
  const std::string actual = checksum(std::span<const TensorEntry>(file.tensors()), file.metadata());
  if (actual == stored->second) return;
  throw_content_error(file.path().string(), "the checksum of tensors and metadata", actual,
                      in_quotes(stored->second) + ", as metadata \"" + checksum_key +
                          "\" says; the file is damaged (or was changed, and that entry should be left out)");
}

}  // namespace moe_mamba::detail
