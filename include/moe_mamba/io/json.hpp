#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/io/classic_locale.hpp"
#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/json_parser.hpp"
#include "moe_mamba/io/quoted_text.hpp"
#include "moe_mamba/io/text_order.hpp"

/// Untrusted JSON files: nesting and number of values are bounded, and anything unexpected throws a std::runtime_error
/// that names the file, the field, its value and what is allowed.
namespace moe_mamba::inline v0_2 {

/// A JSON value. Numbers written as integers that fit into 64 bits have Kind::integer, all others Kind::number.
struct JsonValue {
  enum class Kind { null, boolean, integer, number, string, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;  // set for integers as well
  std::string string;
  std::vector<JsonValue> elements;    // of an array or object, in order
  std::vector<std::string> keys;      // of an object: one per element
  std::vector<std::uint32_t> sorted;  // of an object: indices of the keys in alphabetical order

  static JsonValue of_kind(Kind kind) {
    JsonValue value;
    value.kind = kind;
    return value;
  }
  static JsonValue of(bool boolean) {
    JsonValue value = of_kind(Kind::boolean);
    value.boolean = boolean;
    return value;
  }
  static JsonValue of(std::int64_t integer) {
    JsonValue value = of_kind(Kind::integer);
    value.integer = integer;
    value.number = static_cast<double>(integer);
    return value;
  }
  static JsonValue of(std::uint64_t integer) {
    const bool fits = integer <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    return fits ? of(static_cast<std::int64_t>(integer)) : of(static_cast<double>(integer));
  }
  static JsonValue of(double number) {
    JsonValue value = of_kind(Kind::number);
    value.number = number;
    return value;
  }
  static JsonValue of(std::string string) {
    JsonValue value = of_kind(Kind::string);
    value.string = std::move(string);
    return value;
  }

  /// The element of an object with that key, or null.
  const JsonValue* find(std::string_view key) const {
    const auto at = std::lower_bound(sorted.begin(), sorted.end(), key,
                                     [&](std::uint32_t index, std::string_view name) { return keys[index] < name; });
    return at == sorted.end() || keys[*at] != key ? nullptr : &elements[*at];
  }

  /// For messages: scalars by value, arrays and objects by kind and size.
  std::string text() const;
};

/// Limits of a file's nesting depth and number of values.
struct JsonLimits {
  std::size_t depth, values;
};

namespace detail {

/// A key as part of a path in a message: in quotes unless it is a plain identifier.
inline std::string path_part(const std::string& name) {
  const bool is_plain = !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return is_plain ? name : in_quotes(name);
}

/// Builds a tree of values within limits, so that no file can overflow the stack or take many times its size of memory.
class JsonBuilder {
 public:
  JsonBuilder(const std::string& file, JsonLimits limits) : file_(file), limits_(limits) {}

  /// Number of open arrays and objects.
  std::size_t depth() const { return open_.size(); }
  /// The key of the current member of the innermost object.
  const std::string& name() const { return open_.back()->keys.back(); }
  JsonValue finish() { return std::move(root_); }

  void key(std::string name) { open_.back()->keys.push_back(std::move(name)); }
  void add(JsonValue value) { append(std::move(value)); }
  void open(JsonValue::Kind kind) {
    if (depth() == limits_.depth) {
      const bool is_named = !open_.empty() && !open_.front()->keys.empty();
      throw_content_error(file_, "the nesting" + (is_named ? " in " + path_part(open_.front()->keys.back()) : ""),
                          "deeper than " + std::to_string(limits_.depth), std::to_string(limits_.depth) + " levels");
    }
    open_.push_back(&append(JsonValue::of_kind(kind)));
  }
  void close() {
    JsonValue& value = *open_.back();
    const auto& keys = value.keys;
    value.sorted = order_of(keys.size(), [&](auto index) { return std::string_view(keys[index]); });
    const auto duplicate = std::adjacent_find(value.sorted.begin(), value.sorted.end(),
                                              [&](auto a, auto b) { return keys[a] == keys[b]; });
    if (duplicate != value.sorted.end()) throw_duplicate(file_, "key " + path(keys[*duplicate]));
    open_.pop_back();
  }

 private:
  /// The path of a member of the innermost object.
  std::string path(const std::string& member) const {
    std::string text;
    for (std::size_t i = 0; i + 1 < open_.size(); ++i) {
      if (!open_[i]->keys.empty()) text += path_part(open_[i]->keys.back()) + ".";
    }
    return text + path_part(member);
  }
  JsonValue& append(JsonValue&& value) {
    if (++values_ > limits_.values) {
      throw_content_error(file_, "the number of values", "over " + std::to_string(limits_.values),
                          "at most " + std::to_string(limits_.values));
    }
    if (open_.empty()) return root_ = std::move(value);
    // Pointers to open values stay valid: only the innermost one gets new elements.
    return open_.back()->elements.emplace_back(std::move(value));
  }

  const std::string& file_;
  JsonLimits limits_;
  JsonValue root_;
  std::vector<JsonValue*> open_;
  std::size_t values_ = 0;
};

/// Builds a tree from all of the parser's events.
class JsonTreeReader {
 public:
  JsonTreeReader(const std::string& file, JsonLimits limits) : tree_(file, limits) {}

  JsonValue finish() { return tree_.finish(); }

  void null() { tree_.add({}); }
  void boolean(bool value) { tree_.add(JsonValue::of(value)); }
  void negative_integer(std::int64_t value) { tree_.add(JsonValue::of(value)); }
  void unsigned_integer(std::uint64_t value) { tree_.add(JsonValue::of(value)); }
  void real(double value, std::string_view) { tree_.add(JsonValue::of(value)); }
  void string(std::string& value) { tree_.add(JsonValue::of(std::move(value))); }
  void start_object() { tree_.open(JsonValue::Kind::object); }
  void start_array() { tree_.open(JsonValue::Kind::array); }
  void end_object() { tree_.close(); }
  void end_array() { tree_.close(); }
  void key(std::string& name) { tree_.key(std::move(name)); }

 private:
  JsonBuilder tree_;
};

/// Parses a JSON text with a Reader constructed from (file, arguments...) and returns its finish().
template <class Reader, class... Arguments>
auto read_json(std::string_view text, const std::string& file, Arguments... arguments) {
  if (text.starts_with("\xef\xbb\xbf")) {
    throw_content_error(file, "the beginning", "a byte order mark", "JSON text without one");
  }
  if (const auto zero = text.find('\0'); zero != text.npos) {
    throw_content_error(file, "byte " + std::to_string(zero), "zero", "JSON text");
  }
  Reader reader(file, arguments...);
  parse_json_text({.text = text, .file = file, .name = "the text", .allows_non_finite = true}, reader);
  return reader.finish();
}

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

/// The limits of a config.json.
inline constexpr JsonLimits json_limits{16, std::size_t{1} << 18};

/// Parses a JSON text as Python does: accepts NaN, Infinity and -Infinity, and reads numbers too large for a double as
/// infinite. `file` names it in errors.
inline JsonValue parse_json(std::string_view text, const std::string& file, JsonLimits limits = json_limits) {
  return detail::read_json<detail::JsonTreeReader>(text, file, limits);
}

}  // namespace moe_mamba::inline v0_2
