#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/safetensors_header.hpp"

/// JSON files of strangers: what is read is bounded in size, depth and count, and every surprise is a named error.
namespace moe_mamba {

/// A JSON value. Numbers that are written as integers and fit 64 bits are integers, all others are not.
struct JsonValue {
  enum class Kind { null, boolean, integer, number, string, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;  // of an integer as well
  std::string string;
  std::vector<JsonValue> elements;           // of an array or object, in order
  std::vector<std::string> keys;             // of an object: one for each element
  std::map<std::string, std::size_t> place;  // of an object: where among the elements a key stands

  /// The element of that name of an object, or null.
  const JsonValue* find(const std::string& key) const {
    const auto found = place.find(key);
    return found == place.end() ? nullptr : &elements[found->second];
  }

  /// For a message: numbers and names as they are, the rest by kind and size.
  std::string text() const;
};

namespace detail {

inline constexpr std::size_t json_depth_limit = 16, json_count_limit = std::size_t{1} << 18;

inline std::string number_text(double value) {
  char buffer[32];
  const int size = std::snprintf(buffer, sizeof buffer, "%.15g", value);
  return std::string(buffer, static_cast<std::size_t>(size));
}

/// Takes the parser's events and builds values of them.
class JsonReader {
 public:
  explicit JsonReader(const std::string& file) : file_(file) {}

  JsonValue finish() { return std::move(root_); }

  bool null() { return put({}); }
  bool boolean(bool value) {
    JsonValue result;
    result.kind = JsonValue::Kind::boolean;
    result.boolean = value;
    return put(std::move(result));
  }
  bool number_integer(std::int64_t value) {
    JsonValue result;
    result.kind = JsonValue::Kind::integer;
    result.integer = value;
    result.number = static_cast<double>(value);
    return put(std::move(result));
  }
  bool number_unsigned(std::uint64_t value) {
    if (value > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return number_float(static_cast<double>(value), "");
    }
    return number_integer(static_cast<std::int64_t>(value));
  }
  bool number_float(double value, const std::string&) {
    JsonValue result;
    result.kind = JsonValue::Kind::number;
    result.number = value;
    return put(std::move(result));
  }
  bool string(std::string& value) {
    JsonValue result;
    result.kind = JsonValue::Kind::string;
    result.string = std::move(value);
    return put(std::move(result));
  }
  bool binary(std::vector<std::uint8_t>&) { return false; }
  bool start_object(std::size_t) { return open(JsonValue::Kind::object); }
  bool start_array(std::size_t) { return open(JsonValue::Kind::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    JsonValue& object = *open_.back();
    if (!object.place.emplace(name, object.elements.size()).second) {
      throw_content_error(file_, "field " + in_quotes(name), "there twice", "each field once");
    }
    object.keys.push_back(std::move(name));
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) {
    throw_content_error(file_, "text", "not valid at byte " + std::to_string(position) + " (" + error.what() + ")",
                        "JSON");
  }

 private:
  JsonValue& add(JsonValue&& value) {
    if (++count_ > json_count_limit) {
      throw_content_error(file_, "number of values", "over " + std::to_string(json_count_limit),
                          "at most " + std::to_string(json_count_limit));
    }
    if (open_.empty()) return root_ = std::move(value);
    return open_.back()->elements.emplace_back(std::move(value));
  }
  bool put(JsonValue&& value) {
    add(std::move(value));
    return true;
  }
  bool open(JsonValue::Kind kind) {
    if (open_.size() == json_depth_limit) {
      throw_content_error(file_, "depth", "over " + std::to_string(json_depth_limit),
                          "at most " + std::to_string(json_depth_limit) + " levels");
    }
    JsonValue value;
    value.kind = kind;
    open_.push_back(&add(std::move(value)));  // stays where it is while it is open: only its own elements grow
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& file_;
  JsonValue root_;
  std::vector<JsonValue*> open_;
  std::size_t count_ = 0;
};

}  // namespace detail

inline std::string JsonValue::text() const {
  switch (kind) {
    case Kind::null:
      return "null";
    case Kind::boolean:
      return boolean ? "true" : "false";
    case Kind::integer:
      return std::to_string(integer);
    case Kind::number:
      return detail::number_text(number);
    case Kind::string:
      return detail::in_quotes(string);
    case Kind::array:
      return "an array of " + std::to_string(elements.size());
    default:
      return "an object of " + std::to_string(elements.size());
  }
}

/// Reads a JSON text. `file` names it in errors, which are std::runtime_error.
inline JsonValue parse_json(std::string_view text, const std::string& file) {
  if (text.size() >= 3 && text.substr(0, 3) == "\xef\xbb\xbf") {
    detail::throw_content_error(file, "beginning", "a byte order mark", "JSON text without one");
  }
  if (const auto zero = text.find('\0'); zero != text.npos) {
    detail::throw_content_error(file, "byte " + std::to_string(zero), "zero", "JSON text");
  }
  detail::JsonReader reader(file);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.finish();
}

}  // namespace moe_mamba
