#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "moe_mamba/io/hash.hpp"
#include "moe_mamba/io/safetensors.hpp"

/// A checksum of the tensors and metadata of a file, stored in its metadata: the format has none, and a flipped bit in
/// a weight would go unnoticed. It detects corruption, not tampering. Model files without one are accepted.
namespace moe_mamba::inline v0_2::detail {

inline constexpr const char* checksum_key = "moe_mamba.checksum";

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
