#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "moe_mamba/io/classic_locale.hpp"
#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/floating_point_guard.hpp"
#include "moe_mamba/io/quoted_text.hpp"
#include "moe_mamba/text/utf8.hpp"

/// A parser of JSON (RFC 8259) that builds nothing: a reader is told of each value, as it comes, and may refuse it. Takes time
/// proportional to the text, and a byte of memory for each array or object that is open.
namespace moe_mamba::inline v0_2::detail {

/// A JSON text and where it comes from.
struct JsonText {
  std::string_view text;
  const std::string& file;  // in errors
  const char* name;         // of the text, in errors
  bool allows_non_finite;   // whether NaN, Infinity and -Infinity are numbers, as for Python's json module
};

/// A number: an integer where it is written as one and fits into 64 bits.
struct JsonNumber {
  enum class Kind { negative_integer, unsigned_integer, real };

  Kind kind;
  std::int64_t negative = 0;
  std::uint64_t natural = 0;
  double real = 0;  // infinite if it is too large for a double
};

/// The tokens of a JSON text. Must be constructed, and live, in the locale "C".
class JsonScanner {
 public:
  explicit JsonScanner(const JsonText& source) : source_(source), text_(source.text) {}

  /// Skips white space and returns the next byte, zero at the end.
  char next() {
    while (!at_end() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
    return here();
  }
  /// Whether that byte comes next, after white space, and skips it.
  bool take(char byte) {
    if (next() != byte) return false;
    ++at_;
    return true;
  }
  void require_end() {
    if (next(); !at_end()) fail("text after the value");
  }

  /// A word that stands for a value.
  void word(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) fail("no value");
    at_ += word.size();
  }
  /// The string that begins with the quotation mark here; valid until the next one is read.
  std::string& string();
  /// The number that begins here.
  JsonNumber number();
  /// The same as it is written.
  std::string_view number_text() const { return text_.substr(number_, at_ - number_); }

  [[noreturn]] void fail(const char* complaint) const {
    throw_content_error(source_.file, source_.name, "not valid at byte " + std::to_string(at_) + " (" + complaint + ")",
                        "JSON");
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  char here() const { return at_end() ? '\0' : text_[at_]; }
  bool is_digit() const { return here() >= '0' && here() <= '9'; }
  void digits() {
    if (!is_digit()) fail("no digit");
    while (is_digit()) ++at_;
  }
  void escape();
  char32_t four_digits();
  JsonNumber non_finite(double value, std::string_view written) {
    if (!source_.allows_non_finite) fail("no value");
    word(written);
    return {.kind = JsonNumber::Kind::real, .real = value};
  }

  JsonText source_;
  std::string_view text_;
  std::size_t at_ = 0, number_ = 0;
  std::string string_;
};

inline std::string& JsonScanner::string() {
  string_.clear();
  for (++at_; here() != '"';) {
    const auto byte = static_cast<unsigned char>(here());
    if (byte == '\\') {
      escape();
    } else if (byte < 0x20) {
      fail(at_end() ? "a string without an end" : "a control character in a string");
    } else {
      const std::size_t bytes = utf8_character(text_.substr(at_, 4));
      if (bytes == 0) fail("a string that is not UTF-8");
      string_.append(text_, at_, bytes);
      at_ += bytes;
    }
  }
  ++at_;
  return string_;
}

inline void JsonScanner::escape() {
  constexpr std::string_view letters = "\"\\/bfnrt", meanings = "\"\\/\b\f\n\r\t";
  ++at_;
  if (here() != 'u') {
    const auto letter = letters.find(here());
    if (letter == letters.npos) fail("an unknown escape sequence");
    string_ += meanings[letter];
    ++at_;
    return;
  }
  ++at_;
  char32_t code = four_digits();
  if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_).starts_with("\\u")) {
    at_ += 2;
    const char32_t low = four_digits();
    if (low < 0xdc00 || low > 0xdfff) fail("half of a surrogate pair");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  if (code >= 0xd800 && code <= 0xdfff) fail("half of a surrogate pair");
  append_utf8(string_, code);
}

inline char32_t JsonScanner::four_digits() {
  const char* const begin = text_.data() + at_;
  std::uint32_t code = 0;
  const bool complete = text_.size() - at_ >= 4 && std::from_chars(begin, begin + 4, code, 16).ptr == begin + 4;
  if (!complete) fail("no four hexadecimal digits");
  at_ += 4;
  return code;
}

inline JsonNumber JsonScanner::number() {
  using Kind = JsonNumber::Kind;
  constexpr double infinity = std::numeric_limits<double>::infinity();
  number_ = at_;
  if (here() == 'N') return non_finite(std::numeric_limits<double>::quiet_NaN(), "NaN");
  const bool is_negative = here() == '-';
  if (is_negative) ++at_;
  if (here() == 'I') return non_finite(is_negative ? -infinity : infinity, "Infinity");
  if (!is_negative && !is_digit()) fail("no value");
  if (here() == '0') {
    ++at_;
  } else {
    digits();
  }
  bool is_integer = true;
  if (here() == '.') {
    is_integer = false;
    ++at_;
    digits();
  }
  if (here() == 'e' || here() == 'E') {
    is_integer = false;
    ++at_;
    if (here() == '+' || here() == '-') ++at_;
    digits();
  }
  const std::string_view text = number_text();
  const char *const begin = text.data(), *const end = begin + text.size();
  JsonNumber number{.kind = is_negative ? Kind::negative_integer : Kind::unsigned_integer};
  if (is_integer) {
    const auto parsed =
        is_negative ? std::from_chars(begin, end, number.negative) : std::from_chars(begin, end, number.natural);
    if (parsed.ec == std::errc{}) return number;
  }
  number.kind = Kind::real;
  number.real = std::strtod(std::string(text).c_str(), nullptr);
  return number;
}

/// Reports a text's values to a Reader, which has these members and may throw in all of them:
///
///   null(), boolean(bool), negative_integer(std::int64_t), unsigned_integer(std::uint64_t), real(double, std::string_view),
///   string(std::string&), start_object(), key(std::string&), end_object(), start_array(), end_array()
template <class Reader>
class JsonParser {
 public:
  JsonParser(const JsonText& text, Reader& reader) : scanner_(text), reader_(reader) {}

  void parse() {
    while (begin_value() || end_value()) {
    }
    scanner_.require_end();
  }

 private:
  /// Reads a value, or of an array or object the beginning. Whether another value comes next, the first one in it.
  bool begin_value() {
    switch (scanner_.next()) {
      case '{':
        scanner_.take('{');
        reader_.start_object();
        open_ += '}';
        return scanner_.next() != '}' && key();
      case '[':
        scanner_.take('[');
        reader_.start_array();
        open_ += ']';
        return scanner_.next() != ']';
      case '"':
        return reader_.string(scanner_.string()), false;
      case 'n':
        return scanner_.word("null"), reader_.null(), false;
      case 't':
        return scanner_.word("true"), reader_.boolean(true), false;
      case 'f':
        return scanner_.word("false"), reader_.boolean(false), false;
      default:
        return number(), false;
    }
  }

  /// Goes on behind a value, to the end of all arrays and objects that end there. Whether another value comes next.
  bool end_value() {
    for (; !open_.empty(); open_.pop_back()) {
      const bool in_object = open_.back() == '}';
      if (scanner_.take(',')) return !in_object || key();
      if (!scanner_.take(open_.back())) scanner_.fail(in_object ? "neither , nor }" : "neither , nor ]");
      in_object ? reader_.end_object() : reader_.end_array();
    }
    return false;
  }

  bool key() {
    if (scanner_.next() != '"') scanner_.fail("no key");
    reader_.key(scanner_.string());
    if (!scanner_.take(':')) scanner_.fail("no : after a key");
    return true;
  }

  void number() {
    const JsonNumber number = scanner_.number();
    switch (number.kind) {
      case JsonNumber::Kind::negative_integer:
        return reader_.negative_integer(number.negative);
      case JsonNumber::Kind::unsigned_integer:
        return reader_.unsigned_integer(number.natural);
      default:
        return reader_.real(number.real, scanner_.number_text());
    }
  }

  JsonScanner scanner_;
  Reader& reader_;
  std::string open_;  // what closes the arrays and objects that are open
};

/// Parses a text. Throws a FileError that names the file if it is not JSON, and what the reader throws.
template <class Reader>
void parse_json_text(const JsonText& text, Reader& reader) {
  const ClassicLocale locale;
  const FloatingPointGuard guard;
  JsonParser<Reader>(text, reader).parse();
}

}  // namespace moe_mamba::inline v0_2::detail
