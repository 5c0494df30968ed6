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

}  // namespace moe_mamba::inline v0_2
