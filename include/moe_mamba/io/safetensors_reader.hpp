#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/json_parser.hpp"
#include "moe_mamba/io/quoted_text.hpp"
#include "moe_mamba/io/safetensors_header.hpp"
#include "moe_mamba/io/text_order.hpp"

/// Reading the header of a safetensors file; see io/safetensors_header.hpp.
namespace moe_mamba::inline v0_2 {

namespace detail {

/// Handles the events of the JSON parser as a state machine that knows what may come next: nothing unexpected is
/// stored, nesting is limited to three levels, and duplicate keys are detected.
class SafetensorsHeaderReader {
 public:
  SafetensorsHeaderReader(const std::string& file, std::span<const std::byte> data) : file_(file), data_(data) {}

  /// Checks and returns the contents.
  SafetensorsContents finish();

  // The parser's interface. Everything unexpected throws.
  void null() { unexpected("null"); }
  void boolean(bool value) { unexpected(value ? "true" : "false"); }
  void negative_integer(std::int64_t value) { unexpected(std::to_string(value)); }
  void unsigned_integer(std::uint64_t value);
  void real(double, std::string_view text) { unexpected(std::string(text.substr(0, 40))); }
  void string(std::string& value);
  void start_object();
  void key(std::string& name);
  void end_object();
  void start_array();
  void end_array();

 private:
  enum class State { Outside, Tensors, Metadata, Tensor, Shape, Offsets };
  struct Range {
    std::uint64_t begin = 0, end = 0;
    std::size_t tensor = 0;
  };

  [[noreturn]] void unexpected(const std::string& value);
  [[noreturn]] void fail(const std::string& field, const std::string& value, const std::string& allowed) const {
    throw_content_error(file_, "tensor " + in_quotes(tensor_.name) + ": " + field, value, allowed);
  }
  void end_tensor();
  void end_metadata();

  const std::string& file_;
  std::span<const std::byte> data_;
  State state_ = State::Outside;
  std::string key_;    // the last key of the object that state_ is in
  std::string field_;  // the last field of a tensor
  bool has_metadata_ = false, has_type_ = false, has_shape_ = false, has_offsets_ = false;
  TensorEntry tensor_;
  std::vector<std::uint64_t> offsets_;
  std::vector<Range> ranges_;
  std::string metadata_text_;                 // keys and values, concatenated
  std::vector<std::uint32_t> metadata_ends_;  // end offset of each
  SafetensorsContents contents_;
};

inline void SafetensorsHeaderReader::unexpected(const std::string& value) {
  switch (state_) {
    case State::Outside:
      throw_content_error(file_, "header", value, "a JSON object");
    case State::Metadata:
      throw_content_error(file_, "__metadata__ " + in_quotes(key_), value, "a string");
    case State::Tensor:
      fail(field_, value, field_ == "dtype" ? "a string" : "an array");
    case State::Shape:
    case State::Offsets:
      fail(field_ + " element", value, "an integer from 0 to 2^63 - 1");
    default:
      if (key_ == metadata_key) throw_content_error(file_, "__metadata__", value, "an object of strings");
      throw_content_error(file_, "tensor " + in_quotes(key_), value, "an object of dtype, shape and data_offsets");
  }
}

inline void SafetensorsHeaderReader::unsigned_integer(std::uint64_t value) {
  if (state_ != State::Shape && state_ != State::Offsets) unexpected(std::to_string(value));
  if (value > static_cast<std::uint64_t>(std::numeric_limits<Index>::max())) unexpected(std::to_string(value));
  if (state_ == State::Shape) {
    if (tensor_.shape.size() == safetensors_rank_limit) fail("shape", "longer than 64", "at most 64 extents");
    tensor_.shape.push_back(static_cast<Index>(value));
  } else {
    if (offsets_.size() == 2) fail("data_offsets", "longer than 2", "[begin, end]");
    offsets_.push_back(value);
  }
}

inline void SafetensorsHeaderReader::string(std::string& value) {
  if (state_ == State::Metadata) {
    for (const std::string* text : {&key_, &value}) {
      metadata_text_ += *text;
      metadata_ends_.push_back(static_cast<std::uint32_t>(metadata_text_.size()));
    }
  } else if (state_ == State::Tensor && field_ == "dtype") {
    const auto type = std::find_if(data_types.begin(), data_types.end(), [&](auto& t) { return t.name == value; });
    if (type == data_types.end()) {
      std::string allowed;
      for (const auto& known : data_types) allowed += (allowed.empty() ? "" : ", ") + std::string(known.name);
      fail("dtype", in_quotes(value), allowed);
    }
    tensor_.type = static_cast<DataType>(type - data_types.begin());
    has_type_ = true;
  } else {
    unexpected("the string " + in_quotes(value));
  }
}

inline void SafetensorsHeaderReader::start_object() {
  if (state_ == State::Outside) {
    state_ = State::Tensors;
  } else if (state_ == State::Tensors && key_ == metadata_key) {
    if (std::exchange(has_metadata_, true)) throw_duplicate(file_, "key " + in_quotes(metadata_key));
    state_ = State::Metadata;
  } else if (state_ == State::Tensors) {
    state_ = State::Tensor;
    tensor_ = TensorEntry{};
    tensor_.name = key_;
    has_type_ = has_shape_ = has_offsets_ = false;
  } else {
    unexpected("an object");
  }
}

inline void SafetensorsHeaderReader::key(std::string& name) {
  if (state_ != State::Tensor) {
    key_ = name;
    return;
  }
  field_ = name;
  const bool known = name == "dtype" || name == "shape" || name == "data_offsets";
  if (!known) fail("a field", in_quotes(name), "dtype, shape and data_offsets");
  const bool duplicate = name == "dtype" ? has_type_ : name == "shape" ? has_shape_ : has_offsets_;
  if (duplicate) throw_duplicate(file_, "field " + name + " of tensor " + in_quotes(tensor_.name));
}

inline void SafetensorsHeaderReader::start_array() {
  if (state_ != State::Tensor || field_ == "dtype") unexpected("an array");
  if (field_ == "shape") {
    state_ = State::Shape;
    has_shape_ = true;
  } else {
    state_ = State::Offsets;
    has_offsets_ = true;
    offsets_.clear();
  }
}

inline void SafetensorsHeaderReader::end_array() { state_ = State::Tensor; }

inline void SafetensorsHeaderReader::end_object() {
  if (state_ == State::Tensor) end_tensor();
  if (state_ == State::Metadata) end_metadata();
  state_ = state_ == State::Tensors ? State::Outside : State::Tensors;
}

inline void SafetensorsHeaderReader::end_tensor() {
  if (!has_type_) fail("dtype", "missing", "a string");
  if (!has_shape_) fail("shape", "missing", "an array");
  if (!has_offsets_ || offsets_.size() != 2) fail("data_offsets", "not a pair", "[begin, end]");
  const std::uint64_t begin = offsets_[0], end = offsets_[1];
  const std::string range = "[" + std::to_string(begin) + ", " + std::to_string(end) + "]";
  if (begin > end) fail("data_offsets", range, "begin <= end");
  if (end > data_.size()) {
    throw_content_error(file_, "the file is truncated: tensor " + in_quotes(tensor_.name) + ": data_offsets", range,
                        "at most the " + std::to_string(data_.size()) + " bytes of data");
  }
  const Index bytes = tensor_bytes(tensor_.type, tensor_.shape);
  if (bytes < 0) fail("shape", text_of(tensor_.shape), "less than 2^63 bytes");
  if (end - begin != static_cast<std::uint64_t>(bytes)) {
    fail("data_offsets", range,
         std::to_string(bytes) + " bytes, the size of dtype " + std::string(name_of(tensor_.type)) + " and shape " +
             text_of(tensor_.shape));
  }
  tensor_.data = data_.subspan(begin, end - begin);
  ranges_.push_back({begin, end, contents_.tensors.size()});
  contents_.tensors.push_back(std::move(tensor_));
}

/// The map is filled in sorted order: most of the time would be spent in lookups otherwise.
inline void SafetensorsHeaderReader::end_metadata() {
  const auto text = [&](std::size_t i) {
    const std::uint32_t begin = i == 0 ? 0 : metadata_ends_[i - 1];
    return std::string_view(metadata_text_).substr(begin, metadata_ends_[i] - begin);
  };
  const auto key = [&](std::size_t i) { return text(2 * i); };
  const auto order = order_of(metadata_ends_.size() / 2, key);
  std::size_t duplicate = order.size();
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (key(order[i - 1]) == key(order[i])) duplicate = std::min<std::size_t>(duplicate, order[i]);
  }
  if (duplicate < order.size()) throw_duplicate(file_, "metadata key " + in_quotes(key(duplicate)));
  auto& metadata = contents_.metadata;
  for (std::size_t at = 0; at < order.size(); ++at) {
    constexpr std::size_t ahead = 8;  // prefetch distance
    if (at + 2 * ahead < order.size()) __builtin_prefetch(&metadata_ends_[2 * std::size_t{order[at + 2 * ahead]}]);
    if (at + ahead < order.size()) __builtin_prefetch(key(order[at + ahead]).data());
    metadata.emplace_hint(metadata.end(), key(order[at]), text(2 * std::size_t{order[at]} + 1));
  }
}

inline SafetensorsContents SafetensorsHeaderReader::finish() {
  std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) {
    return std::tie(a.begin, a.end, a.tensor) < std::tie(b.begin, b.end, b.tensor);
  });
  std::vector<TensorEntry> ordered;
  ordered.reserve(ranges_.size());
  std::uint64_t covered = 0;
  for (const Range& range : ranges_) {
    tensor_ = std::move(contents_.tensors[range.tensor]);
    if (range.begin != covered) {
      fail("data_offsets", "[" + std::to_string(range.begin) + ", " + std::to_string(range.end) + "]",
           "begin = " + std::to_string(covered) + ", where the tensor before it ends: no holes, no overlaps");
    }
    covered = range.end;
    ordered.push_back(std::move(tensor_));
  }
  if (covered != data_.size()) {
    throw_content_error(file_, "data after the header", std::to_string(data_.size()) + " bytes",
                        "the " + std::to_string(covered) + " bytes of the tensors");
  }
  const auto by_name = order_of(ordered.size(), [&](auto i) { return std::string_view(ordered[i].name); });
  const auto same = [&](auto a, auto b) { return ordered[a].name == ordered[b].name; };
  if (const auto duplicate = std::adjacent_find(by_name.begin(), by_name.end(), same); duplicate != by_name.end()) {
    throw_duplicate(file_, "tensor name " + in_quotes(ordered[*duplicate].name));
  }
  contents_.tensors = std::move(ordered);
  return std::move(contents_);
}

}  // namespace detail

/// Parses a file in memory. The tensors' data point into `bytes`; `file` names it in errors.
inline SafetensorsContents parse_safetensors(std::span<const std::byte> bytes, const std::string& file) {
  const std::string size = std::to_string(bytes.size()) + " bytes", other = "not a safetensors file: ";
  if (bytes.size() < 8) detail::throw_content_error(file, other + "file size", size, "at least 8 bytes");
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  const std::uint64_t longest = std::min<std::uint64_t>(bytes.size() - 8, detail::safetensors_header_limit);
  if (length < 2 || length > longest) {
    // A truncated file still has its header's opening brace.
    const bool cut = length > longest && length <= detail::safetensors_header_limit &&
                     (bytes.size() == 8 || bytes[8] == std::byte{'{'});
    detail::throw_content_error(file, (cut ? "the file is truncated: " : other) + "header length",
                                std::to_string(length),
                                detail::range_text<std::uint64_t>(2, longest) + " in a file of " + size);
  }
  const auto header = bytes.subspan(8, length);
  const std::string_view text(reinterpret_cast<const char*>(header.data()), header.size());
  if (text.front() != '{') {
    detail::throw_content_error(file, other + "header's first byte", detail::in_quotes(text.substr(0, 1)), "{");
  }
  if (const auto zero = text.find('\0'); zero != text.npos) {
    detail::throw_content_error(file, "header byte " + std::to_string(zero), "zero", "JSON text");
  }
  detail::SafetensorsHeaderReader reader(file, bytes.subspan(8 + header.size()));
  detail::parse_json_text({.text = text, .file = file, .name = "header", .allows_non_finite = false}, reader);
  return reader.finish();
}

}  // namespace moe_mamba::inline v0_2
