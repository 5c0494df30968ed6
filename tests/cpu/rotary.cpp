// Rotary positions on the CPU against the naive reference.
#include "moe_mamba/cpu/rotary.hpp"

#include <cmath>
#include <vector>

#include "moe_mamba/reference/rotary.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

constexpr Index heads = 3;

/// Sequence b begins at position `read` + b.
template <class C, class Device>
std::vector<C> rotated(Device& device, Shape shape, Index width, Index rotary, Index read, bool backward) {
  const Index columns = heads * width, stride = columns + 3;
  auto x = test::uniform<C>(shape.tokens() * stride, 1);
  std::vector<C> positions(static_cast<std::size_t>(shape.batch * 3));
  for (Index b = 0; b < shape.batch; ++b) write_position(read + b, positions.data() + b * 3);
  rotary_embedding(device, RotaryEmbedding<C>{.shape = shape,
                                              .x = {x.data(), shape.tokens(), columns, stride},
                                              .head_width = width,
                                              .rotary_width = rotary,
                                              .base = 10000,
                                              .positions = StateView<C>{positions.data(), 3},
                                              .backward = backward});
  return x;
}

}  // namespace

TEMPLATE_TEST_CASE("Rotary positions agree with the formulas", "[cpu][rotary]", float, double) {
  cpu::Device device(Threads{2});
  reference::Device naive;
  for (const Shape shape : {Shape{0, 3}, Shape{2, 0}, Shape{1, 1}, Shape{3, 50}}) {
    for (const auto& [width, rotary] : {std::pair<Index, Index>{2, 2}, {5, 4}, {64, 64}, {300, 270}}) {
      for (const Index read : {Index{0}, Index{777}, Index{1} << 40}) {
        for (const bool backward : {false, true}) {
          CAPTURE(shape.batch, shape.length, width, rotary, read, backward);
          CHECK(test::relative_error(rotated<TestType>(device, shape, width, rotary, read, backward),
                                     rotated<double>(naive, shape, width, rotary, read, backward)) <=
                (sizeof(TestType) == 4 ? 3e-7 : 1e-15));
        }
      }
    }
  }
}

TEST_CASE("Products of rotated rows depend on the distance of their positions", "[cpu][rotary]") {
  cpu::Device device;
  constexpr Index width = 8;
  const auto product = [&](Index a, Index b) {
    const auto x = rotated<double>(device, {1, 1}, width, width, a, false);
    const auto y = rotated<double>(device, {1, 1}, width, width, b, false);
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i) sum += x[i] * y[i + width];
    return sum;
  };
  CHECK(std::abs(product(7, 3) - product(1007, 1003)) <= 1e-12);
  CHECK(std::abs(product(7, 3) - product(3, 7)) > 1e-3);
}

TEST_CASE("Rotating back undoes a rotation", "[cpu][rotary]") {
  cpu::Device device;
  auto x = test::uniform<double>(10 * 12, 1);
  const auto before = x;
  for (const bool backward : {false, true}) {
    rotary_embedding(device, RotaryEmbedding<double>{.shape = {1, 10},
                                                     .x = matrix(x.data(), 10, 12),
                                                     .head_width = 6,
                                                     .rotary_width = 4,
                                                     .base = 100,
                                                     .positions = {},
                                                     .backward = backward});
  }
  CHECK(test::relative_error(x, before) <= 1e-15);
}
