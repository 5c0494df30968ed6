/// A single kernel call: the selective scan over arrays of the caller's memory, whole and in two chunks.
#include <cstdio>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/cpu/calls.hpp"

using namespace moe_mamba;

int main() {
  constexpr Index length = 1000, channels = 48;
  constexpr int states = 16;

  Random random(Seed{1});
  const auto numbers = [&](Index count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  };
  // Inputs per step, in rows of channels, and parameters per channel: a step bias, log decay rates and a skip weight.
  const auto u = numbers(length * channels), delta = numbers(length * channels), z = numbers(length * channels),
             b = numbers(length * states), c = numbers(length * states), bias = numbers(channels),
             a_log = numbers(channels * states), skip = numbers(channels);

  cpu::Device device;  // the caller's thread; Device(Threads{4}) adds three of its own

  // `count` steps from `first` on; `state` is read and updated.
  std::vector<float> y(u.size());
  const auto scan = [&](Index first, Index count, std::vector<float>& state) {
    const auto rows = [&](auto& values, Index columns) {
      return std::span(values).subspan(static_cast<std::size_t>(first * columns),
                                       static_cast<std::size_t>(count * columns));
    };
    cpu::selective_scan<float, states>(device, {1, count},
                                       {.u = rows(u, channels),
                                        .delta = rows(delta, channels),
                                        .b = rows(b, states),
                                        .c = rows(c, states),
                                        .z = rows(z, channels),
                                        .delta_bias = bias,
                                        .a_log = a_log,
                                        .d = skip},
                                       state, rows(y, channels));
  };

  std::vector<float> whole(states * channels), chunked(states * channels);
  scan(0, length, whole);
  const std::vector<float> expected = y;
  scan(0, 321, chunked);
  scan(321, length - 321, chunked);
  const bool same = y == expected && chunked == whole;
  std::printf("%td steps at once and in two chunks give %s outputs and states\n", length,
              same ? "the same" : "different");
  return same ? 0 : 1;
}
