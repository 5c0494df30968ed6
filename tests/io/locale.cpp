// Files and messages are the same in every locale of the program.
#include <algorithm>
#include <clocale>
#include <cmath>
#include <locale>
#include <span>
#include <string>

#include "moe_mamba/io/json.hpp"
#include "moe_mamba/io/safetensors.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// C++'s streams with numbers as many languages write them.
struct Grouping : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

/// Sets both global locales, that of C (if the system has the named one) and that of C++, for its lifetime.
class GlobalLocale {
 public:
  explicit GlobalLocale(const char* name)
      : before_(std::locale::global(std::locale(std::locale::classic(), new Grouping))) {
    found_ = std::setlocale(LC_ALL, name) != nullptr;
  }
  ~GlobalLocale() {
    std::locale::global(before_);
    std::setlocale(LC_ALL, "C");
  }
  bool found() const { return found_; }

 private:
  std::locale before_;
  bool found_ = false;
};

/// Everything that formats or parses numbers and text.
std::string all_texts() {
  const std::string numbers = "[1.5e-5, -0.25, 123456.75, 1e300, 7, 0.1]";
  std::string text;
  const JsonValue json = parse_json(numbers, "file");
  for (const JsonValue& value : json.elements) text += value.text() + ' ' + std::to_string(value.integer) + ' ';
  for (const double value : {1.5e-5, 1.0 / 3, 1e15, 1e16, 1234567.0, -0.0}) text += detail::number_text(value) + ' ';
  text += error_text("learning_rate", 0.015625, "0 to 1") + error_text("tokens", 1234567, "0 to 1");
  const std::string header = R"({"a":{"dtype":"U8","shape":[4.5],"data_offsets":[0,4]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  file += header + "abcd";
  try {
    parse_safetensors(std::as_bytes(std::span(file)), "file");
  } catch (const std::runtime_error& error) {
    text += error.what();
  }
  return text;
}

}  // namespace

TEST_CASE("Numbers are read, written and reported alike in every locale", "[io]") {
  const std::string expected = all_texts();
  CHECK(expected.find("1.5e-05") != expected.npos);
  CHECK(expected.find("0.015625") != expected.npos);
  CHECK(expected.find("1234567;") != expected.npos);
  CHECK(expected.find("is 4.5;") != expected.npos);
  // A decimal comma, one of two bytes, other grouping, other letters; locales that the system lacks are tested in C++
  // only.
  for (const char* name :
       {"C", "de_DE.UTF-8", "ps_AF.UTF-8", "fa_IR.UTF-8", "fr_FR.UTF-8", "hi_IN.UTF-8", "tr_TR.UTF-8"}) {
    const GlobalLocale locale(name);
    INFO(name << (locale.found() ? "" : ", which is not installed"));
    CHECK(all_texts() == expected);
  }
  CHECK(all_texts() == expected);
}

TEST_CASE("Reading preserves the thread's locale, also if it fails", "[io]") {
  const GlobalLocale locale("de_DE.UTF-8");
  const std::string point = std::localeconv()->decimal_point;
  CHECK_THROWS_AS(parse_json("[1.5", "file"), std::runtime_error);
  CHECK(std::localeconv()->decimal_point == point);
}
