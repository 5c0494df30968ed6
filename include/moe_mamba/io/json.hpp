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

/// JSON files of strangers: what is read is bounded in depth and count, and every surprise is a std::runtime_error that names
/// file, place, value and what is allowed.
namespace moe_mamba {

/// A JSON value. Numbers that are written as integers and fit 64 bits are integers, all others are not.
struct JsonValue {
  enum class Kind { null, boolean, integer, number, string, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;  // of an integer as well
  std::string string;
  std::vector<JsonValue> elements;    // of an array or object, in order
  std::vector<std::string> keys;      // of an object: one for each element
  std::vector<std::uint32_t> sorted;  // of an object: where the keys stand, in their order

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

  /// The element of that name of an object, or null.
  const JsonValue* find(std::string_view key) const {
    const auto at = std::lower_bound(sorted.begin(), sorted.end(), key,
                                     [&](std::uint32_t place, std::string_view name) { return keys[place] < name; });
    return at == sorted.end() || keys[*at] != key ? nullptr : &elements[*at];
  }

  /// For a message: numbers and names as they are, the rest by kind and size.
  std::string text() const;
};

/// How deep a file may nest and how many values it may hold.
struct JsonLimits {
  std::size_t depth, values;
};

namespace detail {

/// A name as part of a path in a message: in quotes unless it is a plain word.
inline std::string path_part(const std::string& name) {
  const bool is_plain = !name.empty() && name.size() <= 100 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return is_plain ? name : in_quotes(name);
}

/// Builds a tree of values, within limits: so deep and of so many values that no file can use up the stack or many times its
/// own size of memory.
class JsonBuilder {
 public:
  JsonBuilder(const std::string& file, JsonLimits limits) : file_(file), limits_(limits) {}

  /// How many arrays and objects are open.
  std::size_t depth() const { return open_.size(); }
  /// The name of the member that comes, of the innermost object.
  const std::string& name() const { return open_.back()->keys.back(); }
  JsonValue finish() { return std::move(root_); }

  void key(std::string name) { open_.back()->keys.push_back(std::move(name)); }
  void add(JsonValue value) { place(std::move(value)); }
  void open(JsonValue::Kind kind) {
    if (depth() == limits_.depth) {
      const bool is_named = !open_.empty() && !open_.front()->keys.empty();
      throw_content_error(file_, "the nesting" + (is_named ? " in " + path_part(open_.front()->keys.back()) : ""),
                          "deeper than " + std::to_string(limits_.depth), std::to_string(limits_.depth) + " levels");
    }
    open_.push_back(&place(JsonValue::of_kind(kind)));
  }
  void close() {
    JsonValue& value = *open_.back();
    const auto& keys = value.keys;
    value.sorted = order_of(keys.size(), [&](auto place) { return std::string_view(keys[place]); });
    const auto twice = std::adjacent_find(value.sorted.begin(), value.sorted.end(),
                                          [&](auto a, auto b) { return keys[a] == keys[b]; });
    if (twice != value.sorted.end()) throw_content_error(file_, path(keys[*twice]), "there twice", "each name once");
    open_.pop_back();
  }

 private:
  /// The names on the way to a member of the innermost object.
  std::string path(const std::string& member) const {
    std::string text;
    for (std::size_t i = 0; i + 1 < open_.size(); ++i) {
      if (!open_[i]->keys.empty()) text += path_part(open_[i]->keys.back()) + ".";
    }
    return text + path_part(member);
  }
  JsonValue& place(JsonValue&& value) {
    if (++values_ > limits_.values) {
      throw_content_error(file_, "the number of values", "over " + std::to_string(limits_.values),
                          "at most " + std::to_string(limits_.values));
    }
    if (open_.empty()) return root_ = std::move(value);
    // What is open stays where it is: only the innermost one gets new elements.
    return open_.back()->elements.emplace_back(std::move(value));
  }

  const std::string& file_;
  JsonLimits limits_;
  JsonValue root_;
  std::vector<JsonValue*> open_;
  std::size_t values_ = 0;
};

/// Takes the parser's events and builds a tree of them all.
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

/// The numbers that JSON has no spelling for, as Python's json module writes them: NaN, Infinity and -Infinity; and those too
/// large for a double, which it reads as infinity. Made in the locale "C".
struct NonFiniteNumbers {
  struct Number {
    std::size_t ordinal;  // among all numbers of the text, from 0
    double value;
  };

  std::vector<Number> numbers;
  std::string text;  // with a zero, padded to the same length, in the place of each; empty if there are none

  explicit NonFiniteNumbers(std::string_view json) {
    std::size_t ordinal = 0;
    for (std::size_t i = 0; i < json.size();) {
      const std::size_t size = token_size(json, i);
      const std::string_view token = json.substr(i, size);
      const double value = value_of(token);
      if (value != 0) {  // as NaN is, too
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
  /// A string with its quotes, a number or word, or a single character.
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
  /// The infinity that a number of JSON is rounded to, 0 for any other token.
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

/// What the parser calls: the events of a reader, and its own complaint about the text.
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

/// Reads a JSON text with a reader that is made of (file, arguments...); gives its finish().
template <class Reader, class... Arguments>
auto read_json(std::string_view text, const std::string& file, Arguments... arguments) {
  // The parser would take a byte order mark as nothing and a zero byte as the end.
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

/// Reads a JSON text as Python does: with NaN, Infinity and -Infinity, and as infinity what is too large for a double. `file` names it in errors.
inline JsonValue parse_json(std::string_view text, const std::string& file, JsonLimits limits = json_limits) {
  return detail::read_json<detail::JsonTreeReader>(text, file, limits);
}

}  // namespace moe_mamba
