#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/io/data_type.hpp"

/// The header of the safetensors format (github.com/huggingface/safetensors):
///
///   8 bytes   N, the length of the header, little-endian
///   N bytes   the header: a JSON object, tensor name → {"dtype": "F32", "shape": [rows, columns], "data_offsets":
///   [begin, end]},
///             with an optional entry "__metadata__" of strings; may be padded with spaces
///   the rest  the tensors' elements, little-endian, row-major; offsets count from here
///
/// Files are untrusted input: reading one gives tensors inside the file or throws a std::runtime_error, in time and
/// memory proportional to the header.
namespace moe_mamba::inline v0_2 {

/// One tensor of a file. `data` points into the file's bytes and need not be aligned.
struct TensorEntry {
  std::string name;
  DataType type = DataType::F32;
  std::vector<Index> shape;  // empty for a scalar
  std::span<const std::byte> data;
};

/// The contents of a file: its tensors in the order of their data, and its metadata.
struct SafetensorsContents {
  std::vector<TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

namespace detail {

inline constexpr std::uint64_t safetensors_header_limit = 100'000'000;
inline constexpr std::size_t safetensors_rank_limit = 64;
inline constexpr std::string_view metadata_key = "__metadata__";

/// Length in bytes of the UTF-8 character at the beginning of `text` (RFC 3629: no overlong forms, no surrogates), 0 if
/// there is none.
inline std::size_t utf8_character(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    return follows(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf) && follows(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    return follows(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

/// A name or value in quotes for a message, always valid UTF-8: control characters and invalid bytes are escaped. Long
/// texts are truncated between two characters.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 100;
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result = "\"";
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t bytes = utf8_character(text.substr(at));
    if (at + (bytes == 0 ? 1 : bytes) > longest) break;
    const auto first = static_cast<unsigned char>(text[at]);
    if (bytes == 0 || first < 0x20 || first == 0x7f) {
      result += "\\x";
      result += digits[first / 16];
      result += digits[first % 16];
      ++at;
    } else {
      result += text.substr(at, bytes);
      at += bytes;
    }
  }
  return result + (at < text.size() ? "\" (cut)" : "\"");
}

inline std::string text_of(std::span<const Index> shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

/// Size of a tensor in bytes, or -1 if it does not fit into an Index. An extent of zero makes the tensor empty; the
/// product of the others must not overflow even then, so that any part of the shape can be multiplied safely.
inline Index tensor_bytes(DataType type, std::span<const Index> shape) {
  Index bytes = bytes_of(type);
  bool empty = false;
  for (const Index extent : shape) {
    if (extent == 0) {
      empty = true;
    } else if (bytes > std::numeric_limits<Index>::max() / extent) {
      return -1;
    } else {
      bytes *= extent;
    }
  }
  return empty ? 0 : bytes;
}

}  // namespace detail

/// Reads a file in memory. Its definition, and the JSON parser that it needs, are in io/safetensors_reader.hpp, so that a
/// program can compile them in one file, as it does kernels (files.hpp).
template <class Contents>
struct SafetensorsReader {
  static Contents read(std::span<const std::byte> bytes, const std::string& file);
};

/// Parses a file in memory. The tensors' data point into `bytes`; `file` names it in errors.
inline SafetensorsContents parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  return SafetensorsReader<SafetensorsContents>::read(bytes, file);
}

}  // namespace moe_mamba::inline v0_2
