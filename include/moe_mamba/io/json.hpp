#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "moe_mamba/io/classic_locale.hpp"
#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/floating_point_guard.hpp"
#include "moe_mamba/io/safetensors_header.hpp"
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

  bool null() { return add({}); }
  bool boolean(bool value) { return add(JsonValue::of(value)); }
  bool number_integer(std::int64_t value) { return add(JsonValue::of(value)); }
  bool number_unsigned(std::uint64_t value) { return add(JsonValue::of(value)); }
  bool number_float(double value, const std::string&) { return add(JsonValue::of(value)); }
  bool string(std::string& value) { return add(JsonValue::of(std::move(value))); }
  bool binary(std::vector<std::uint8_t>&) { return false; }
  bool start_object(std::size_t) { return tree_.open(JsonValue::Kind::object), true; }
  bool start_array(std::size_t) { return tree_.open(JsonValue::Kind::array), true; }
  bool end_object() { return tree_.close(), true; }
  bool end_array() { return tree_.close(), true; }
  bool key(std::string& name) { return tree_.key(std::move(name)), true; }

 private:
  bool add(JsonValue value) { return tree_.add(std::move(value)), true; }

  JsonBuilder tree_;
};

/// Finds the non-finite numbers that Python's json module accepts: NaN, Infinity, -Infinity, and numbers too large for
/// a double, which it reads as infinite. Must be constructed in the locale "C".
struct NonFiniteNumbers {
  struct Number {
    std::size_t ordinal;  // index among all numbers of the text
    double value;
  };

  std::vector<Number> numbers;
  std::string text;  // with each replaced by a zero, padded to the same length; empty if there are none

  explicit NonFiniteNumbers(std::string_view json) {
    std::size_t ordinal = 0;
    for (std::size_t i = 0; i < json.size();) {
      const std::size_t size = token_size(json, i);
      const std::string_view token = json.substr(i, size);
      const double value = value_of(token);
      if (value != 0) {  // true for NaN as well
        if (text.empty()) text = json;
        text.replace(i, size, size, ' ').replace(i, 1, 1, '0');
        numbers.push_back({ordinal, value});
      }
      if (value != 0 || is_digit(token.front()) || token.front() == '-') ++ordinal;
      i += size;
    }
  }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '.' || c == '+' ||
           c == '-' || static_cast<unsigned char>(c) >= 0x80;
  }
  /// Length of the token at `begin`: a string with its quotes, a number or keyword, or a single character.
  static std::size_t token_size(std::string_view json, std::size_t begin) {
    std::size_t end = begin + 1;
    if (json[begin] == '"') {
      while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? std::size_t{2} : std::size_t{1};
      return std::min(end + 1, json.size()) - begin;
    }
    if (!is_word(json[begin])) return 1;
    while (end < json.size() && is_word(json[end])) ++end;
    return end - begin;
  }
  /// 0 for any other token.
  static double value_of(std::string_view token) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    return token == "NaN"         ? std::numeric_limits<double>::quiet_NaN()
           : token == "Infinity"  ? infinity
           : token == "-Infinity" ? -infinity
                                  : overflow(token);
  }
  /// The infinity that a JSON number overflows to, 0 for any other token.
  static double overflow(std::string_view token) {
    const std::string_view digits = token.substr(token.front() == '-' ? 1 : 0);
    if (digits.empty() || !is_digit(digits.front())) return 0;
    if (digits.size() <= std::numeric_limits<double>::max_exponent10 && digits.find_first_of("eE") == token.npos)
      return 0;
    const auto point = digits.find('.');
    const bool has_fraction = point == digits.npos || (point + 1 < digits.size() && is_digit(digits[point + 1]));
    const bool leads_with_zero =
        digits.size() > 1 && digits[0] == '0' && std::string_view(".eE").find(digits[1]) == digits.npos;
    if (!has_fraction || leads_with_zero) return 0;
    const std::string text(token);
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    return end == text.c_str() + text.size() && std::isinf(value) ? value : 0;
  }
};

/// The parser's event handler: forwards to a reader and reports syntax errors.
template <class Reader>
struct JsonEvents : Reader {
  using Reader::Reader;
  const std::string* file = nullptr;
  std::span<const NonFiniteNumbers::Number> non_finite;

  bool number_integer(std::int64_t value) {
    ++ordinal_;
    return Reader::number_integer(value);
  }
  bool number_unsigned(std::uint64_t value) {
    const std::size_t ordinal = ordinal_++;
    if (non_finite.empty() || non_finite.front().ordinal != ordinal) return Reader::number_unsigned(value);
    const double number = non_finite.front().value;
    non_finite = non_finite.subspan(1);
    return Reader::number_float(number, number_text(number));
  }
  bool number_float(double value, const std::string& text) {
    ++ordinal_;
    return Reader::number_float(value, text);
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) {
    throw_content_error(*file, "the text", invalid_json(position, error.what()), "JSON");
  }

 private:
  std::size_t ordinal_ = 0;
};

/// Parses a JSON text with a Reader constructed from (file, arguments...) and returns its finish().
template <class Reader, class... Arguments>
auto read_json(std::string_view text, const std::string& file, Arguments... arguments) {
  // The parser would skip a byte order mark and stop at a zero byte.
  if (text.starts_with("\xef\xbb\xbf")) {
    throw_content_error(file, "the beginning", "a byte order mark", "JSON text without one");
  }
  if (const auto zero = text.find('\0'); zero != text.npos) {
    throw_content_error(file, "byte " + std::to_string(zero), "zero", "JSON text");
  }
  JsonEvents<Reader> events(file, arguments...);
  events.file = &file;
  const ClassicLocale locale;
  const FloatingPointGuard guard;
  const NonFiniteNumbers python(text);
  if (!python.text.empty()) text = python.text;
  events.non_finite = python.numbers;
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
  return events.finish();
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
