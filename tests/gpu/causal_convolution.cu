#include "gpu/rounded.cuh"
#include "moe_mamba/cuda/causal_convolution/backward.cuh"
#include "moe_mamba/cuda/causal_convolution/forward.cuh"
#include "moe_mamba/reference/causal_convolution.hpp"

using namespace moe_mamba;
using test::gpu::Buffer;
using test::gpu::Checks;
using test::gpu::ResultBuffers;
using test::gpu::Results;

namespace {

/// A convolution with random inputs. Rows are padded by `gap` elements: pairs of channels can be loaded together only
/// if both that and the number of channels are even. With an odd number of channels, weights are not aligned for vector
/// loads.
template <class C, class S, int K>
struct Problem {
  using T = compute_t<C>;
  Shape shape;
  Index channels, stride, state_stride, first_weight;
  std::vector<C> x, dy;
  std::vector<T> state, dstate;
  std::vector<S> weight, bias;

  Problem(Shape s, Index e, Index gap, std::uint64_t seed)
      : shape(s), channels(e), stride(e + gap), state_stride((K - 1) * e + 5), first_weight(e % 2) {
    x = test::uniform<C>(s.tokens() * stride, seed + 1);
    dy = test::uniform<C>(s.tokens() * stride, seed + 2);
    state = test::uniform<T>(s.batch * state_stride, seed + 3);
    dstate = test::uniform<T>(s.batch * state_stride, seed + 4);
    weight = test::uniform<S>(first_weight + e * K, seed + 5);
    bias = test::uniform<S>(e, seed + 6);
  }

  /// The same values in another scalar type.
  template <class Other>
  explicit Problem(const Problem<Other, S, K>& other)
      : shape(other.shape),
        channels(other.channels),
        stride(other.stride),
        state_stride(other.state_stride),
        first_weight(other.first_weight),
        x(test::converted<C>(other.x)),
        dy(test::converted<C>(other.dy)),
        state(test::converted<T>(other.state)),
        dstate(test::converted<T>(other.dstate)),
        weight(other.weight),
        bias(other.bias) {}

  MatrixView<const C> rows(const C* values) const { return {values, shape.tokens(), channels, stride}; }

  Results<C> before() const {
    return {{{"y", test::poison<C>(shape.tokens() * stride)}, {"dx", test::poison<C>(shape.tokens() * stride)}},
            {{"state", state},
             {"saved", test::poison<T>(shape.batch * (K - 1) * channels)},
             {"dweight", test::uniform<T>(channels * K, 1)},
             {"dbias", test::uniform<T>(channels, 2)},
             {"dstate", dstate}}};
  }

  template <class Device, class Input, class Parameter, class Output, class Sum>
  void run(Device& device, const Input& input, const Parameter& parameter, const Output& output, const Sum& sum,
           bool with_state, bool one_by_one) const {
    const auto states = [&](const char* name) {
      return with_state ? StateView<T>{sum(name), state_stride} : StateView<T>{};
    };
    const auto out = [&](const char* name) { return MatrixView<C>{output(name), shape.tokens(), channels, stride}; };
    const CausalConvolution<C, S, K> forward{shape,           rows(input(x)),  parameter(weight) + first_weight,
                                             parameter(bias), states("state"), sum("saved"),
                                             out("y")};
    const CausalConvolutionBackward<C, S, K> backward{shape,           rows(input(x)), parameter(weight) + first_weight,
                                                      parameter(bias), sum("saved"),   rows(input(dy)),
                                                      out("dx"),       sum("dweight"), sum("dbias"),
                                                      states("dstate")};
    if (one_by_one) {
      each_packed_run(forward, [&](const auto& part) { causal_convolution(device, part); });
      each_packed_run(backward, [&](const auto& part) { causal_convolution_backward(device, part); });
    } else {
      causal_convolution(device, forward);
      causal_convolution_backward(device, backward);
    }
  }

  Results<C> on_reference(bool with_state) const {
    Results<C> results = before();
    reference::Device device;
    const auto data = [](const auto& values) { return values.data(); };
    run(
        device, data, data, [&](const char* name) { return results.activations[name].data(); },
        [&](const char* name) { return results.sums[name].data(); }, with_state, false);
    return results;
  }

  /// Packed sequences together, or one by one.
  Results<C> on_gpu(cuda::Device& device, bool with_state, Checks& checks, bool one_by_one = false) const {
    const Buffer<C> x_buffer(x), dy_buffer(dy);
    const Buffer<S> weight_buffer(weight), bias_buffer(bias);
    const ResultBuffers<C> outputs(before());
    run(
        device, [&](const auto& values) { return (&values == &x ? x_buffer : dy_buffer).data(); },
        [&](const auto& values) { return (&values == &weight ? weight_buffer : bias_buffer).data(); },
        [&](const char* name) { return outputs.activation(name); }, [&](const char* name) { return outputs.sum(name); },
        with_state, one_by_one);
    device.synchronize();
    return outputs.values(checks);
  }

  /// The elements of an output that a call has to write. `gaps` is set to whether the padding between rows is
  /// unchanged.
  std::vector<double> written(const std::string& name, const std::vector<double>& values, bool& gaps) const {
    if (name != "y" && name != "dx") return values;
    std::vector<double> result;
    for (Index row = 0; row < shape.tokens(); ++row) {
      const auto first = values.begin() + row * stride;
      result.insert(result.end(), first, first + channels);
      for (auto i = first + channels; i < first + stride; ++i) gaps = gaps && std::isnan(*i);
    }
    return result;
  }
};

/// Double: see tests/gpu/selective_scan.cu. Float: sums of K products of numbers below 1 and the gate give errors of
/// some units in the last place of the largest element; errors of sums over all tokens grow with the square root of
/// their number. bfloat16: the same before rounding.
template <class C>
double bound(const std::string& name, int taps, Index tokens) {
  const bool parameter = name == "dweight" || name == "dbias";
  const double units = 4 + taps + (parameter ? 2 * std::sqrt(static_cast<double>(tokens)) : 0.0);
  return sizeof(C) == 8 ? 1e-12 : units * 1.2e-7;
}

template <class C, class S, int K>
void compare(cuda::Device& device, Checks& checks, Shape shape, Index channels, Index gap, std::uint64_t seed,
             bool with_state) {
  const Problem<C, S, K> problem(shape, channels, gap, seed);
  const auto exact = Problem<double, S, K>(problem).on_reference(with_state);
  const auto actual = problem.on_gpu(device, with_state, checks);
  const auto again = problem.on_gpu(device, with_state, checks);
  const std::string where = "K " + std::to_string(K) + ", batch " + std::to_string(shape.batch) + ", length " +
                            std::to_string(shape.length) + ", channels " + std::to_string(channels) + ", gap " +
                            std::to_string(gap) + ", ";
  actual.each([&]<class V>(const std::string& name, const std::vector<V>&) {
    bool gaps = true, ignored = true;
    checks.within(test::gpu::error_beyond_rounding<V>(problem.written(name, actual.numbers(name), gaps),
                                                      problem.written(name, exact.numbers(name), ignored)),
                  bound<C>(name, K, shape.tokens()), where + name);
    checks.check(gaps, where + name + ": between rows");
    checks.check(actual.same_bits(name, again), where + name + ": the same bits again");
  });
}

template <class C, class S, int K>
void compare_shapes(cuda::Device& device, Checks& checks) {
  const Index lengths[] = {0, 1, 2, 63, 64, 65, 129, 1031}, widths[] = {1, 3, 16, 33, 128, 130};
  for (const Index gap : {3, 2}) {
    if (gap == 2 && sizeof(C) != 2) continue;
    for (std::uint64_t i = 0; i < 8; ++i) {
      // Every length occurs with an even width and either gap.
      const Index width = widths[(i * 5 + K) % 6];
      compare<C, S, K>(device, checks, {1 + static_cast<Index>(i % 3), lengths[i]}, width + (gap == 2 ? width % 2 : 0),
                       gap, 100 * i, i % 3 != 2);
    }
    compare<C, S, K>(device, checks, {2, 2}, 6, gap, 800, true);  // with K from 4 on, shorter than its state
  }
  checks.group(test::gpu::types<C, S>() + ", K " + std::to_string(K));
}

/// Packed sequences agree with the reference, and bit for bit with each sequence alone.
template <class C, class S, int K>
void compare_packed(cuda::Device& device, Checks& checks) {
  for (const auto& lengths : test::gpu::packed_lengths()) {
    const Shape shape = Shape::packed(lengths);
    // With many channels a block takes several tiles of a sequence.
    for (const Index channels : {6, 33, 12802}) {
      if (channels > 100 && shape.tokens() > 700) continue;
      const bool with_state = channels != 33;
      compare<C, S, K>(device, checks, shape, channels, 2, lengths.size(), with_state);
      const Problem<C, S, K> problem(shape, channels, 2, 5);
      const auto together = problem.on_gpu(device, with_state, checks);
      const auto one_by_one = problem.on_gpu(device, with_state, checks, true);
      together.each([&]<class V>(const std::string& name, const std::vector<V>&) {
        checks.check(together.same_bits(name, one_by_one),
                     std::to_string(shape.batch) + " packed sequences, channels " + std::to_string(channels) + ", " +
                         name + ": the bits of each alone");
      });
    }
  }
  checks.group(test::gpu::types<C, S>() + ", K " + std::to_string(K) + ", packed");
}

/// So many channels or sequences that a warp, in the backward pass, takes more than the minimum of steps or chunks.
template <class C>
void compare_many(cuda::Device& device, Checks& checks) {
  for (const Index gap : {2, 3}) {
    compare<C, C, 4>(device, checks, {1, 150}, 12802, gap, 1, true);
    compare<C, C, 4>(device, checks, {9, 20}, 12802, gap, 2, true);
    compare<C, C, 4>(device, checks, {4001, 3}, 6, gap, 3, true);
  }
  checks.group(test::gpu::types<C, C>() + ", many");
}

/// A sequence in chunks with carried state gives the bits of the whole.
template <class C, int K>
void compare_parts(cuda::Device& device, Checks& checks, Index gap) {
  const Index length = 200, channels = 34;
  const Problem<C, C, K> whole({1, length}, channels, gap, 3);
  const auto expected = whole.on_gpu(device, true, checks);
  bool ignored = true;
  std::vector<double> y;
  auto state = whole.state;
  Index first = 0;
  for (const Index steps : {1, 1, 64, 0, 100, 34}) {
    Problem<C, C, K> part = whole;
    part.shape.length = steps;
    part.state = state;
    for (auto* rows : {&part.x, &part.dy}) {
      const auto begin = rows->begin() + first * whole.stride;
      *rows = std::vector<C>(begin, begin + steps * whole.stride);
    }
    const auto results = part.on_gpu(device, true, checks);
    state = results.sums.at("state");
    const auto rows = part.written("y", results.numbers("y"), ignored);
    y.insert(y.end(), rows.begin(), rows.end());
    first += steps;
  }
  checks.check(test::gpu::same_bits(y, whole.written("y", expected.numbers("y"), ignored)), "in parts: y");
  checks.check(test::gpu::same_bits(state, expected.sums.at("state")), "in parts: the state");
  checks.group(test::gpu::types<C, C>() + ", K " + std::to_string(K) + ", gap " + std::to_string(gap) + ", in parts");
}

}  // namespace

int main() {
  return test::gpu::run([](Checks& checks) {
    cuda::Device device;
    compare_shapes<float, float, 1>(device, checks);
    compare_shapes<float, float, 4>(device, checks);
    compare_shapes<float, bfloat16, 4>(device, checks);
    compare_shapes<bfloat16, bfloat16, 3>(device, checks);
    compare_shapes<bfloat16, bfloat16, 4>(device, checks);
    compare_shapes<bfloat16, bfloat16, 7>(device, checks);
    compare_shapes<bfloat16, bfloat16, 64>(device, checks);
    compare_shapes<float, float, 64>(device, checks);
    compare_shapes<double, double, 2>(device, checks);
    compare_shapes<double, double, 4>(device, checks);
    compare_shapes<double, double, 64>(device, checks);
    compare_shapes<bfloat16, float, 1>(device, checks);
    compare_shapes<bfloat16, bfloat16, 8>(device, checks);
    compare_shapes<bfloat16, bfloat16, 9>(device, checks);
    compare_packed<float, float, 4>(device, checks);
    compare_packed<bfloat16, bfloat16, 4>(device, checks);
    compare_packed<bfloat16, bfloat16, 64>(device, checks);
    compare_packed<double, double, 2>(device, checks);
    compare_many<bfloat16>(device, checks);
    compare_parts<float, 4>(device, checks, 3);
    for (const Index gap : {2, 3}) {
      compare_parts<bfloat16, 4>(device, checks, gap);
      compare_parts<bfloat16, 7>(device, checks, gap);
    }
    compare_parts<double, 16>(device, checks, 3);
  });
}
