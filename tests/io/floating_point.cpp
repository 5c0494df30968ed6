// Whatever numbers a file holds, reading it raises no floating-point exception and leaves the thread's flags and traps.
#include <cfenv>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/io/json.hpp"
#include "moe_mamba/io/safetensors.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "support/catch.hpp"
#include "support/floating_point_traps.hpp"

using namespace moe_mamba;

namespace {

/// Calls with traps enabled.
template <class Call>
auto trapping(const Call& call) {
  const test::FloatingPointTraps traps;
  auto result = call();
  const bool raised = traps.raised(), enabled = traps.enabled();
  std::feclearexcept(FE_ALL_EXCEPT);
  CHECK_FALSE(raised);
  CHECK(enabled);
  return result;
}

const std::string numbers[] = {"1e400",
                               "-1e400",
                               "1e308",
                               "1.7976931348623159e308",
                               "1e-400",
                               "4.9e-324",
                               "NaN",
                               "Infinity",
                               "-Infinity",
                               std::string(400, '9'),
                               "-" + std::string(400, '9'),
                               std::string(400, '9') + ".5",
                               "0." + std::string(400, '0') + "1",
                               "18446744073709551616",
                               "1e99999999999999999999"};

std::string safetensors_text(const std::string& extent) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[)" + extent + R"(],"data_offsets":[0,4]}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size() & 0xff);
  file[1] = static_cast<char>(header.size() >> 8);
  return file + header + "abcd";
}

template <class T>
TensorEntry entry_of(const std::vector<T>& values) {
  return {"t", data_type_of<T>, {static_cast<Index>(values.size())}, std::as_bytes(std::span(values))};
}

}  // namespace

TEST_CASE("JSON with any numbers is read with traps enabled", "[io][floating_point]") {
  for (const std::string& number : numbers) {
    INFO(number);
    const JsonValue value = trapping([&] { return parse_json("{\"a\": [" + number + ", 1e400, 1]}", "file"); });
    CHECK(value.find("a")->elements[1].number == std::numeric_limits<double>::infinity());
  }
}

TEST_CASE("A refusal preserves flags and traps as well", "[io][floating_point]") {
  for (const std::string& number : numbers) {
    INFO(number);
    const bool refused = trapping([&] {
      try {
        parse_json("{\"a\": [" + number + ", 1e400", "file");
      } catch (const std::runtime_error&) {
        return true;
      }
      return false;
    });
    CHECK(refused);
    const bool refused_header = trapping([&] {
      const std::string text = safetensors_text(number);
      try {
        parse_safetensors(std::as_bytes(std::span(text)), "file");
      } catch (const std::runtime_error&) {
        return true;
      }
      return false;
    });
    CHECK(refused_header);
  }
}

TEST_CASE("Flags that were raised before stay raised", "[io][floating_point]") {
  std::feclearexcept(FE_ALL_EXCEPT);
  std::feraiseexcept(FE_DIVBYZERO);
  parse_json("[1e400]", "file");
  const int flags = std::fetestexcept(FE_ALL_EXCEPT);
  std::feclearexcept(FE_ALL_EXCEPT);
  CHECK((flags & FE_DIVBYZERO) != 0);
  CHECK((flags & (FE_OVERFLOW | FE_INVALID)) == 0);
}

TEMPLATE_TEST_CASE("Tensors of any numbers are converted with traps enabled", "[io][floating_point]", float, bfloat16,
                   double) {
  const std::vector<double> wide = {1e300,
                                    -1e300,
                                    3.5e38,
                                    1e-300,
                                    std::numeric_limits<double>::infinity(),
                                    std::numeric_limits<double>::quiet_NaN(),
                                    std::numeric_limits<double>::signaling_NaN()};
  const std::vector<float> narrow = {3.4e38f, 1e-45f, std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::signaling_NaN()};
  const auto convert = [](const TensorEntry& tensor) {
    std::vector<TestType> out(static_cast<std::size_t>(elements(tensor)));
    copy_converted(tensor, out.data());
    return out;
  };
  const auto from_wide = trapping([&] { return convert(entry_of(wide)); });
  CHECK(double(from_wide[0]) >= 1e300);
  CHECK(double(from_wide[1]) <= -1e300);
  const auto from_narrow = trapping([&] { return convert(entry_of(narrow)); });
  CHECK(double(from_narrow[2]) == std::numeric_limits<double>::infinity());
}
