/// One kernel and nothing else: the selective scan on arrays of the caller's, in two chunks and in one.
#include <cmath>
#include <cstdio>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/selective_scan.hpp"

using namespace moe_mamba;

int main() {
  constexpr Index batch = 2, length = 1000, channels = 48;
  constexpr int states = 16;

  // Inputs of every step: rows of channels, one sequence after the other.
  Random random(Seed{1});
  const auto numbers = [&](Index count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& value : values) value = static_cast<float>(random.normal());
    return values;
  };
  const auto u = numbers(batch * length * channels), delta = numbers(batch * length * channels),
             z = numbers(batch * length * channels), b = numbers(batch * length * states),
             c = numbers(batch * length * states);
  // Parameters: a step bias, log decay rates and a skip weight for each channel.
  const auto bias = numbers(channels), a_log = numbers(channels * states), skip = numbers(channels);

  cpu::Device device;  // the caller's thread; Device(Threads{4}) adds three of its own

  // y of the steps from `first` on, `count` of them, in sequence `sequence`; `state` is read and brought up to date.
  std::vector<float> y(u.size());
  const auto scan = [&](Index sequence, Index first, Index count, std::vector<float>& state) {
    const Index row = sequence * length + first;
    const auto rows = [&](const std::vector<float>& values, Index columns) {
      return matrix(values.data() + row * columns, count, columns);
    };
    cpu::selective_scan(device,
                        SelectiveScan<float, float, states>{.shape = {1, count},
                                                            .u = rows(u, channels),
                                                            .delta = rows(delta, channels),
                                                            .b = rows(b, states),
                                                            .c = rows(c, states),
                                                            .z = rows(z, channels),
                                                            .delta_bias = bias.data(),
                                                            .a_log = a_log.data(),
                                                            .d = skip.data(),
                                                            .state = {state.data(), static_cast<Index>(state.size())},
                                                            .checkpoints = nullptr,
                                                            .y = matrix(y.data() + row * channels, count, channels),
                                                            .scratch = {}});
  };

  for (Index sequence = 0; sequence < batch; ++sequence) {
    std::vector<float> whole(states * channels), chunked(states * channels);
    scan(sequence, 0, length, whole);
    const std::vector<float> expected = y;
    scan(sequence, 0, 321, chunked);
    scan(sequence, 321, length - 321, chunked);
    const bool same = y == expected && chunked == whole;
    std::printf("sequence %td: %td steps at once and in two chunks give %s outputs and states\n", sequence, length,
                same ? "the same" : "different");
    if (!same) return 1;
  }
  return 0;
}
