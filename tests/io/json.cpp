// The JSON parser against another one, on random texts.
#include "moe_mamba/io/json.hpp"

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

/// A random JSON text, with white space in random places.
std::string random_json(Random& random, int depth) {
  const auto pick = [&](std::initializer_list<const char*> choices) {
    return std::string(choices.begin()[random.below(choices.size())]);
  };
  const auto space = [&] { return pick({"", "", "", " ", "\n", "\t\r "}); };
  const auto string = [&] {
    std::string text = "\"";
    for (auto left = random.below(5); left > 0; --left) {
      text += pick({"a",
                    "Z",
                    "0",
                    "[",
                    "{",
                    ":",
                    ",",
                    "NaN",
                    "\\\"",
                    "\\\\",
                    "\\/",
                    "\\b\\f",
                    "\\n\\r\\t",
                    "\\u0041",
                    "\\u00e9",
                    "\\u20AC",
                    "\\ud83d\\uDE00",
                    "\xc3\xa9",
                    "\xe2\x82\xac",
                    "\xf0\x9f\x98\x80",
                    "\x7f"});
    }
    return text + "\"";
  };
  const auto number = [&] {
    std::string text = pick({"", "-"}) + pick({"0", "7", "12", "9223372036854775807", "9223372036854775808",
                                               "18446744073709551615", "18446744073709551616"});
    text += pick({"", "", ".5", ".0625", ".30000000000000004"});
    return text + pick({"", "", "e3", "E-3", "e+20", "e-310"});
  };
  switch (random.below(depth > 0 ? 7 : 5)) {
    case 0:
      return space() + pick({"null", "true", "false"}) + space();
    case 1:
    case 2:
      return space() + string() + space();
    case 3:
    case 4:
      return space() + number() + space();
    default:
      break;
  }
  const bool is_object = random.below(2) == 0;
  std::string text = space() + (is_object ? "{" : "[") + space();
  const auto size = random.below(4);
  for (std::uint64_t i = 0; i < size; ++i) {
    if (i > 0) text += ",";
    // Keys differ, since duplicates are refused.
    if (is_object) text += space() + "\"" + std::to_string(i) + string().substr(1) + space() + ":";
    text += random_json(random, depth - 1);
  }
  return text + (is_object ? "}" : "]") + space();
}

void check_same(const JsonValue& value, const nlohmann::json& expected) {
  switch (value.kind) {
    case JsonValue::Kind::null:
      CHECK(expected.is_null());
      break;
    case JsonValue::Kind::boolean:
      CHECK(value.boolean == expected.get<bool>());
      break;
    case JsonValue::Kind::integer:
      REQUIRE(expected.is_number_integer());
      CHECK(value.integer == expected.get<std::int64_t>());
      CHECK(value.number == static_cast<double>(value.integer));
      break;
    case JsonValue::Kind::number:
      REQUIRE(expected.is_number());
      if (expected.is_number_integer())
        CHECK(expected.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
      CHECK(value.number == expected.get<double>());
      CHECK(std::signbit(value.number) == std::signbit(expected.get<double>()));
      break;
    case JsonValue::Kind::string:
      CHECK(value.string == expected.get<std::string>());
      break;
    case JsonValue::Kind::array:
      REQUIRE(value.elements.size() == expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) check_same(value.elements[i], expected[i]);
      break;
    case JsonValue::Kind::object:
      REQUIRE(value.elements.size() == expected.size());
      for (const auto& [key, element] : expected.items()) {
        REQUIRE(value.find(key) != nullptr);
        check_same(*value.find(key), element);
      }
      break;
  }
}

}  // namespace

TEST_CASE("Random JSON has the values that another parser reads", "[io][json]") {
  Random random(Seed{1});
  for (int i = 0; i < 3000; ++i) {
    const std::string text = random_json(random, 4);
    INFO(text);
    check_same(parse_json(text, "test"), nlohmann::json::parse(text));
  }
}

TEST_CASE("Damaged JSON is refused where another parser refuses it", "[io][json]") {
  constexpr std::string_view letters =
      "{}[],:\"\\/ubn0123456789.eE+-tfals \n\t\x01\x1f\x80\xbf\xc2\xc3\xe2\xed\xa0\xf0\x9f\xf4";
  Random random(Seed{2});
  int accepted = 0, refused = 0;
  for (int i = 0; i < 30'000; ++i) {
    std::string text = random_json(random, 2);
    for (auto edits = random.below(3); edits > 0 && !text.empty(); --edits) {
      const auto at = static_cast<std::size_t>(random.below(text.size()));
      switch (random.below(3)) {
        case 0:
          text.erase(at, 1);
          break;
        case 1:
          text.insert(at, 1, letters[random.below(letters.size())]);
          break;
        default:
          text[at] = letters[random.below(letters.size())];
      }
    }
    INFO(text);
    const std::string message = test::message_of<std::runtime_error>([&] { (void)parse_json(text, "test"); });
    if (nlohmann::json::accept(text)) {
      // Only what the other parser makes of it otherwise: it takes the last of two equal keys.
      CHECK((message.empty() || message.find("duplicate key") != message.npos));
      ++accepted;
    } else if (!message.empty()) {
      CHECK_THAT(message, Contains("test: the text is not valid at byte ") && Contains("; allowed: JSON"));
      ++refused;
    } else {
      // Numbers that are too large for a double are infinite.
      CHECK(text.find_first_of("eE") != text.npos);
    }
  }
  CHECK(accepted > 5000);
  CHECK(refused > 5000);
}

TEST_CASE("Errors of JSON say where it ends and why", "[io][json]") {
  const auto message = [](std::string_view text) {
    return test::message_of<std::runtime_error>([&] { (void)parse_json(text, "file"); });
  };
  CHECK(message("") == "file: the text is not valid at byte 0 (no value); allowed: JSON");
  CHECK(message("[1, 2") == "file: the text is not valid at byte 5 (neither , nor ]); allowed: JSON");
  CHECK(message("{\"a\" 1}") == "file: the text is not valid at byte 5 (no : after a key); allowed: JSON");
  CHECK(message("{\"a\": 1,}") == "file: the text is not valid at byte 8 (no key); allowed: JSON");
  CHECK(message("[01]") == "file: the text is not valid at byte 2 (neither , nor ]); allowed: JSON");
  CHECK(message("[1.]") == "file: the text is not valid at byte 3 (no digit); allowed: JSON");
  CHECK(message("\"\\ud83d\"") == "file: the text is not valid at byte 7 (half of a surrogate pair); allowed: JSON");
  CHECK(message("\"\\u12g4\"") == "file: the text is not valid at byte 3 (no four hexadecimal digits); allowed: JSON");
  CHECK(message("\"\\x\"") == "file: the text is not valid at byte 2 (an unknown escape sequence); allowed: JSON");
  CHECK(message("\"a\nb\"") ==
        "file: the text is not valid at byte 2 (a control character in a string); allowed: JSON");
  CHECK(message("\"a") == "file: the text is not valid at byte 2 (a string without an end); allowed: JSON");
  CHECK(message("\"\xed\xa0\x80\"") ==
        "file: the text is not valid at byte 1 (a string that is not UTF-8); allowed: JSON");
  CHECK(message("1 2") == "file: the text is not valid at byte 2 (text after the value); allowed: JSON");
}
