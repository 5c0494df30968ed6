#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/cpu/causal_convolution.hpp"

namespace benchmarks {

void convolution(Report& report) {
  using namespace moe_mamba;
  constexpr int taps = 4;
  constexpr Index channels = 1536;
  const Shape shape{1, report.settings().quick ? 128 : 512};
  report.begin_group("convolution", "causal convolution of 1536 channels with 4 taps, ns per output");

  const Index size = shape.tokens() * channels;
  const Buffer<float> x(size, -1, 1, 1), dy(size, -1, 1, 2), weight(channels * taps, -1, 1, 3),
      bias(channels, -1, 1, 4);
  const Buffer<float> saved(channels * (taps - 1)), y(size), dx(size), dweight(channels * taps), dbias(channels);
  const auto rows = [&](const Buffer<float>& buffer) { return matrix(buffer.data(), shape.tokens(), channels); };

  for (const int threads : report.settings().threads) {
    cpu::Device device(Threads{threads});
    const auto forward = [&] {
      causal_convolution(device, CausalConvolution<float, float, taps>{.shape = shape,
                                                                       .x = rows(x),
                                                                       .weight = weight.data(),
                                                                       .bias = bias.data(),
                                                                       .state = {},
                                                                       .saved_state = saved.data(),
                                                                       .y = rows(y)});
    };
    const auto backward = [&] {
      causal_convolution_backward(device, CausalConvolutionBackward<float, float, taps>{.shape = shape,
                                                                                        .x = rows(x),
                                                                                        .weight = weight.data(),
                                                                                        .bias = bias.data(),
                                                                                        .saved_state = saved.data(),
                                                                                        .dy = rows(dy),
                                                                                        .dx = rows(dx),
                                                                                        .dweight = dweight.data(),
                                                                                        .dbias = dbias.data(),
                                                                                        .dstate = {}});
    };
    const Buffer<float> three(3 * size);
    const auto bytes = three.bytes();
    // Numbers read or written per output: x and y; x, dy and dx.
    const auto read_two = [&] { plain_read(device, bytes.first(bytes.size() / 3 * 2)); };
    const auto read_three = [&] { plain_read(device, bytes); };
    const auto add = [&](const std::string& name, const std::vector<Samples>& samples) {
      report.add({name + ", " + std::to_string(shape.length) + " steps",
                  threads,
                  samples[0],
                  1e9 * samples[0].median() / static_cast<double>(size),
                  "ns",
                  {of_read(samples[0], samples[1])}});
    };
    add("forward", interleave(report.settings(), {forward, read_two}));
    add("backward", interleave(report.settings(), {backward, read_three}));
  }
}

}  // namespace benchmarks
