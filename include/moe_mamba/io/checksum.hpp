#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>

#include "moe_mamba/io/hash.hpp"
#include "moe_mamba/io/safetensors.hpp"

/// A checksum of the tensors and metadata of a file, kept in its metadata: the format has none, and a flipped bit in a
/// weight would go unnoticed. It tells damage, not malice. Files of weights without one are taken as they are.
namespace moe_mamba::detail {

inline constexpr const char* checksum_key = "moe_mamba.checksum";

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
