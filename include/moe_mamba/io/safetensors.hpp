#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <stdexcept>
#include <type_traits>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/nearest_names.hpp"
#include "moe_mamba/io/atomic_file.hpp"
#include "moe_mamba/io/floating_point_guard.hpp"
#include "moe_mamba/io/mapped_file.hpp"
#include "moe_mamba/io/quoted_text.hpp"
#include "moe_mamba/io/safetensors_header.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "moe_mamba/io/text_order.hpp"

namespace moe_mamba::inline v0_2 {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little-endian; big-endian machines are not supported");

/// Element types that the library writes: those of parameters, and int16 for the remainders of bfloat16 ones.
template <class T>
concept TensorScalar = StorageScalar<T> || std::same_as<T, std::int16_t>;

/// The element type that stores T.
template <TensorScalar T>
inline constexpr DataType data_type_of = std::same_as<T, double>     ? DataType::F64
                                         : std::same_as<T, float>    ? DataType::F32
                                         : std::same_as<T, bfloat16> ? DataType::BF16
                                                                     : DataType::I16;

/// A memory-mapped safetensors file: opening it reads the header only, and a tensor's data are loaded on access.
/// Entries and their data stay valid as long as the object lives, even if it is moved.
class SafetensorsFile {
 public:
  /// Throws std::runtime_error naming the file and, for invalid contents, the tensor, the field, its value and what is
  /// allowed.
  explicit SafetensorsFile(const std::filesystem::path& path, Links links = Links::followed)
      : path_(path), file_(path, links), contents_(parse_safetensors(file_.bytes(), path.string())) {
    const auto& entries = contents_.tensors;
    by_name_ = detail::order_of(entries.size(), [&](auto i) { return std::string_view(entries[i].name); });
  }

  const std::filesystem::path& path() const { return path_; }
  /// In the order of their data.
  const std::vector<TensorEntry>& tensors() const { return contents_.tensors; }
  /// Indices into tensors(), in the order of the tensors' names.
  const std::vector<std::uint32_t>& by_name() const { return by_name_; }
  const std::map<std::string, std::string>& metadata() const { return contents_.metadata; }

  /// The tensor of that name, or null.
  const TensorEntry* find(std::string_view name) const;

  /// The tensor of that name; throws std::runtime_error if there is none.
  const TensorEntry& at(std::string_view name) const {
    const TensorEntry* entry = find(name);
    if (entry == nullptr) throw_missing(name);
    return *entry;
  }

 private:
  [[noreturn]] void throw_missing(std::string_view name) const;

  std::filesystem::path path_;
  MappedFile file_;
  SafetensorsContents contents_;
  std::vector<std::uint32_t> by_name_;
};

inline const TensorEntry* SafetensorsFile::find(std::string_view name) const {
  const auto& entries = contents_.tensors;
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](std::uint32_t index, std::string_view key) { return entries[index].name < key; });
  return found != by_name_.end() && entries[*found].name == name ? &entries[*found] : nullptr;
}

inline void SafetensorsFile::throw_missing(std::string_view name) const {
  detail::NearestNames nearest(name);
  for (const TensorEntry& tensor : tensors()) nearest.offer(tensor.name);
  const std::string names = nearest.text([](const std::string& one) { return detail::in_quotes(one); });
  detail::throw_content_error(path_.string(), "tensor " + detail::in_quotes(name), "missing",
                              "one of the " + std::to_string(tensors().size()) + " tensors in the file" +
                                  (names.empty() ? "" : ", such as " + names));
}

/// A tensor to write. The data are borrowed until the call returns.
struct TensorSource {
  std::string name;
  DataType type = DataType::F32;
  std::vector<Index> shape;
  std::span<const std::byte> data;
};

namespace detail {

/// A JSON string. Hand-written because the JSON library's serialiser takes seconds to compile.
inline std::string json_string(const char* argument, std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t bytes = utf8_character(text.substr(i));
    require(bytes > 0, argument, in_quotes(text), "UTF-8");
    const auto first = static_cast<unsigned char>(text[i]);
    if (first == '"' || first == '\\') result += '\\';
    if (first < 0x20) {
      result += std::string("\\u00") + digits[first / 16] + digits[first % 16];
    } else {
      result += text.substr(i, bytes);
    }
    i += bytes;
  }
  return result + '"';
}

/// The file up to its data: header length and header, padded with spaces to a multiple of 64 bytes.
inline std::string safetensors_head(std::span<const TensorSource> tensors,
                                    const std::map<std::string, std::string>& metadata) {
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (header.back() != '{') header += ',';
      header += json_string("metadata key", key) + ':' + json_string("metadata value", value);
    }
    header += '}';
  }
  Index begin = 0;
  std::vector<std::string_view> names;
  for (const TensorSource& tensor : tensors) {
    const std::string where = "tensor " + in_quotes(tensor.name);
    require(tensor.name != metadata_key, "tensor name", tensor.name, "any other name");
    require(tensor.shape.size() <= safetensors_rank_limit, (where + ": extents in shape").c_str(), tensor.shape.size(),
            "at most 64");
    for (const Index extent : tensor.shape) require(extent >= 0, (where + ": extent").c_str(), extent, ">= 0");
    const Index bytes = tensor_bytes(tensor.type, tensor.shape);
    require(bytes >= 0 && static_cast<std::uint64_t>(bytes) == tensor.data.size(), (where + ": bytes of data").c_str(),
            tensor.data.size(), [&] {
              return std::to_string(bytes) + ", the size of type " + std::string(name_of(tensor.type)) + " and shape " +
                     text_of(tensor.shape);
            });
    if (header.size() > 1) header += ',';
    header += json_string("tensor name", tensor.name) + ":{\"dtype\":\"" + std::string(name_of(tensor.type)) +
              "\",\"shape\":[";
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      if (i > 0) header += ',';
      header += std::to_string(tensor.shape[i]);
    }
    header += "],\"data_offsets\":[" + std::to_string(begin) + ',' + std::to_string(begin + bytes) + "]}";
    begin += bytes;
    names.push_back(tensor.name);
  }
  header += '}';
  std::sort(names.begin(), names.end());
  const auto duplicate = std::adjacent_find(names.begin(), names.end());
  if (duplicate != names.end()) throw std::invalid_argument("duplicate tensor name " + in_quotes(*duplicate));

  constexpr std::size_t length_bytes = 8, alignment = 64;
  header.resize((header.size() + length_bytes + alignment - 1) / alignment * alignment - length_bytes, ' ');
  require(header.size() <= safetensors_header_limit, "header length", header.size(), "at most 100000000 bytes");
  std::string head(length_bytes, '\0');
  const std::uint64_t length = header.size();
  for (std::size_t i = 0; i < length_bytes; ++i) head[i] = static_cast<char>((length >> (8 * i)) & 0xff);
  return head + header;
}

/// IEEE half precision to float, exact.
constexpr float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

/// `count` elements of type Stored at `from`, each as `convert(element)`; `from` need not be aligned.
template <class Stored, class T, class Convert>
void convert_elements(const std::byte* from, std::size_t count, T* out, Convert convert) {
  for (std::size_t i = 0; i < count; ++i) {
    Stored element;
    std::memcpy(&element, from + i * sizeof(Stored), sizeof(Stored));
    out[i] = convert(element);
  }
}

}  // namespace detail

/// Atomically writes a safetensors file (see AtomicFile). The tensors keep their order, and the data begin at a
/// multiple of 64 bytes. Throws std::invalid_argument, before any file is touched, if a name is duplicate or not UTF-8
/// or if data and shape disagree; std::runtime_error if the file cannot be written.
inline void save_safetensors(const std::filesystem::path& path, std::span<const TensorSource> tensors,
                             const std::map<std::string, std::string>& metadata = {}) {
  const std::string head = detail::safetensors_head(tensors, metadata);
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(head)));
  for (const TensorSource& tensor : tensors) file.write(tensor.data);
  file.commit();
}

/// Number of elements of a tensor.
inline Index elements(const TensorEntry& tensor) {
  return static_cast<Index>(tensor.data.size()) / bytes_of(tensor.type);
}

/// Copies a floating-point tensor to elements(tensor) elements at `out`, rounding to nearest if T is narrower. Equal
/// types are copied bit by bit. Throws std::runtime_error, before writing to `out`, for other types.
template <StorageScalar T>
void copy_converted(const TensorEntry& tensor, T* out) {
  const auto count = static_cast<std::size_t>(elements(tensor));
  const std::byte* from = tensor.data.data();
  if (tensor.type == data_type_of<T>) {
    if (count != 0) std::memcpy(out, from, tensor.data.size());
    return;
  }
  const detail::FloatingPointGuard guard;
  switch (tensor.type) {
    case DataType::F64:
      return detail::convert_elements<double>(from, count, out, [](double x) { return T(x); });
    case DataType::F32:
      return detail::convert_elements<float>(from, count, out, [](float x) { return T(x); });
    case DataType::BF16:
      return detail::convert_elements<bfloat16>(from, count, out, [](bfloat16 x) { return T(float(x)); });
    case DataType::F16:
      return detail::convert_elements<std::uint16_t>(from, count, out,
                                                     [](std::uint16_t x) { return T(detail::half_to_float(x)); });
    default:
      throw FileError(error_text(("tensor " + detail::in_quotes(tensor.name) + ": dtype").c_str(), name_of(tensor.type),
                                 "F64, F32, F16 or BF16"));
  }
}

}  // namespace moe_mamba::inline v0_2
