// Conversion of a file's tensors to another type.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/io/safetensors.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

TEST_CASE("Half precision is read exactly", "[io]") {
  CHECK(detail::half_to_float(0x3c00) == 1.0f);
  CHECK(detail::half_to_float(0xc000) == -2.0f);
  CHECK(detail::half_to_float(0x7bff) == 65504.0f);
  CHECK(detail::half_to_float(0x0001) == 0x1p-24f);
  CHECK(detail::half_to_float(0x03ff) == 0x1.ff8p-15f);
  CHECK(detail::half_to_float(0x3555) == 0x1.554p-2f);
  CHECK(std::signbit(detail::half_to_float(0x8000)));
  CHECK(detail::half_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(detail::half_to_float(0x7e01)));
  // All finite values grow with their bits.
  for (std::uint16_t bits = 1; bits < 0x7c00; ++bits) {
    if (!(detail::half_to_float(bits) > detail::half_to_float(std::uint16_t(bits - 1)))) FAIL("at " << bits);
  }
}

TEMPLATE_TEST_CASE("Tensors convert between floating-point types by rounding to nearest", "[io]", float, double,
                   bfloat16) {
  const std::vector<double> values = {0.0,  -0.0,   1.0,     -1.5,       1.0 / 3,
                                      1e30, -1e-30, 3.14159, 0.00390625, std::numeric_limits<double>::infinity()};
  const auto check = [&]<class Stored>(DataType type, Stored) {
    // Offset by one byte: data in a file need not be aligned.
    std::vector<std::byte> raw(1 + values.size() * sizeof(Stored));
    std::vector<Stored> stored;
    for (const double value : values) stored.push_back(Stored(value));
    std::memcpy(raw.data() + 1, stored.data(), raw.size() - 1);
    const TensorEntry entry{"w", type, {Index(values.size())}, std::span(raw).subspan(1)};
    REQUIRE(elements(entry) == Index(values.size()));
    std::vector<TestType> out(values.size() + 1, TestType(7.0f));
    copy_converted(entry, out.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const TestType expected = TestType(static_cast<double>(stored[i]));
      CHECK(std::memcmp(&out[i], &expected, sizeof(TestType)) == 0);
    }
    CHECK(out.back() == TestType(7.0f));
  };
  check(DataType::F64, double{});
  check(DataType::F32, float{});
  check(DataType::BF16, bfloat16{});

  const std::uint16_t halves[] = {0x3c00, 0x8001};
  TestType out[2] = {TestType(7.0f), TestType(7.0f)};
  copy_converted(TensorEntry{"h", DataType::F16, {2}, std::as_bytes(std::span(halves))}, out);
  CHECK(out[0] == TestType(1.0f));
  CHECK(out[1] == TestType(-0x1p-24f));

  const std::int32_t integers[] = {1, 2};
  const TensorEntry whole{"i", DataType::I32, {2}, std::as_bytes(std::span(integers))};
  const auto message = test::message_of<std::runtime_error>([&] { copy_converted(whole, out); });
  CHECK(message.find("tensor \"i\": dtype is I32; allowed: F64, F32, F16 or BF16") != message.npos);
  CHECK(out[0] == TestType(1.0f));
}
