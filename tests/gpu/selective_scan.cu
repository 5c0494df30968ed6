#include "gpu/selective_scan_problem.cuh"

using namespace test::gpu::scan;
using test::gpu::Checks;

namespace {

template <class C, class S, int N>
void compare(cuda::Device& device, Checks& checks, Shape shape, Index channels, std::uint64_t seed, bool with_state) {
  const Problem<C, S, N> problem(shape, channels, seed);
  const auto exact = Problem<double, S, N>(problem).on_reference(with_state);
  const auto simple = problem.plain(with_state);
  const auto actual = problem.on_gpu(device, with_state, checks);
  const auto again = problem.on_gpu(device, with_state, checks, Run::as_graph);
  const std::string where = "N " + std::to_string(N) + ", batch " + std::to_string(shape.batch) + ", length " +
                            std::to_string(shape.length) + ", channels " + std::to_string(channels) + ", ";
  actual.each([&]<class V>(const std::string& name, const std::vector<V>&) {
    const auto expected = problem.written(name, exact.numbers(name));
    const double plain_error = test::relative_error(problem.written(name, simple.at(name)), expected);
    checks.within(test::gpu::error_beyond_rounding<V>(problem.written(name, actual.numbers(name)), expected),
                  bound<C>(name, plain_error, shape.tokens()), where + name);
    checks.check(actual.same_bits(name, again), where + name + ": the same bits in a graph");
  });
  for (const char* name : {"y", "du", "ddelta", "dz"}) {
    checks.check(problem.gaps_hold(actual.numbers(name), channels, problem.stride), where + name + ": between rows");
  }
  for (const char* name : {"db", "dc"}) {
    checks.check(problem.gaps_hold(actual.numbers(name), N, problem.narrow_stride), where + name + ": between rows");
  }
}

/// Packed sequences agree with the reference, and bit for bit with each sequence alone.
template <class C, class S, int N>
void compare_packed(cuda::Device& device, Checks& checks) {
  for (const auto& lengths : test::gpu::packed_lengths()) {
    const Shape shape = Shape::packed(lengths);
    for (const Index channels : {1, 33, 130}) {
      const bool with_state = channels != 33;
      compare<C, S, N>(device, checks, shape, channels, lengths.size(), with_state);
      const Problem<C, S, N> problem(shape, channels, 5);
      const auto together = problem.on_gpu(device, with_state, checks);
      const auto one_by_one = problem.on_gpu(device, with_state, checks, Run::one_by_one);
      together.each([&]<class V>(const std::string& name, const std::vector<V>&) {
        checks.check(together.same_bits(name, one_by_one),
                     std::to_string(shape.batch) + " packed sequences, channels " + std::to_string(channels) + ", " +
                         name + ": the bits of each alone");
      });
    }
  }
  checks.group(test::gpu::types<C, S>() + ", N " + std::to_string(N) + ", packed");
}

template <class C, class S, int N>
void compare_shapes(cuda::Device& device, Checks& checks, Index longest = 1031) {
  const Index lengths[] = {0, 1, 63, 64, 65, 1031, 7, 130}, widths[] = {1, 3, 16, 33, 128, 130};
  for (std::uint64_t i = 0; i < 8; ++i) {
    if (lengths[i] > longest) continue;
    compare<C, S, N>(device, checks, {1 + static_cast<Index>(i % 3), lengths[i]}, widths[(i * 5 + N) % 6], 100 * i,
                     i % 4 != 3);
  }
  checks.group(test::gpu::types<C, S>() + ", N " + std::to_string(N));
}

/// As many sequences as multiprocessors, whose load narrow blocks balance.
template <class C, class S, int N>
void compare_narrow(cuda::Device& device, Checks& checks) {
  const Index processors = device.processors();
  checks.check(cuda::detail::scan_takes_narrow<C, N>(device, cuda::detail::scan_blocks<C>(processors, 33)),
               "blocks are narrow");
  compare<C, S, N>(device, checks, {processors, 75}, 33, 11, true);
  compare<C, S, N>(device, checks, {processors, 16}, 36, 12, false);
  compare<C, S, N>(device, checks, {processors, 2}, 64, 13, true);
  checks.group(test::gpu::types<C, S>() + ", N " + std::to_string(N) + ", narrow blocks");
}

/// A sequence in chunks with carried state against the whole: both within the bound of the reference.
template <class C, class S, int N>
void compare_parts(cuda::Device& device, Checks& checks) {
  const Index length = 700, channels = 36;
  Problem<C, S, N> problem({1, length}, channels, 77);
  const auto exact = Problem<double, S, N>(problem).on_reference(true);
  const auto simple = problem.plain(true);
  std::vector<double> y;
  auto state = problem.state;
  Index first = 0;
  for (const Index steps : {1, 64, 300, 0, 2, 333}) {
    auto part = problem.part(first, steps);
    part.state = state;
    const auto results = part.on_gpu(device, true, checks);
    state = results.sums.at("state");
    const auto rows = part.written("y", results.numbers("y"));
    y.insert(y.end(), rows.begin(), rows.end());
    first += steps;
  }
  const auto close = [&]<class V>(const std::string& name, const std::vector<double>& values, V) {
    const auto expected = problem.written(name, exact.numbers(name));
    const double plain_error = test::relative_error(problem.written(name, simple.at(name)), expected);
    checks.within(test::gpu::error_beyond_rounding<V>(values, expected), bound<C>(name, plain_error, length),
                  "in parts: " + name);
  };
  close("y", y, C{});
  close("state", test::converted<double>(state), compute_t<C>{});
  checks.group(test::gpu::types<C, S>() + ", in parts");
}

/// A NaN reaches later steps of its channel, and nothing else.
template <class C>
void nan_goes_through(cuda::Device& device, Checks& checks) {
  Problem<C, C, 16> problem({1, 100}, 40, 5);
  problem.u[count(50 * problem.stride + 7)] = C(std::numeric_limits<float>::quiet_NaN());
  const auto results = problem.on_gpu(device, true, checks);
  const auto y = results.numbers("y"), state = results.numbers("state");
  int wrong = 0;
  for (Index t = 0; t < 100; ++t) {
    for (Index e = 0; e < 40; ++e) {
      wrong += std::isnan(y[count(t * problem.stride + e)]) != (e == 7 && t >= 50);
    }
  }
  checks.check(wrong == 0, "NaN in u: " + std::to_string(wrong) + " elements of y");
  for (int n = 0; n < 16; ++n) {
    checks.check(std::isnan(state[count(n * 40 + 7)]), "NaN in u: the state");
    checks.check(!std::isnan(state[count(n * 40 + 8)]), "NaN in u: another channel's state");
  }
  checks.group(test::gpu::types<C, C>() + ", NaN");
}

/// Memory for a batch must be enough for any smaller or shorter one, though fewer sequences are divided into more
/// chunks.
template <class C>
void check_scratch(const cuda::Device& device, Checks& checks) {
  for (const auto& [channels, states] : {std::pair<Index, Index>{64, 256}, {1024, 128}, {2048, 16}, {40, 3}}) {
    for (const Index length : {1, 31, 129, 1025, 2000}) {
      std::size_t before = 0;
      for (Index batch = 1; batch < 300; ++batch) {
        const std::size_t bytes = selective_scan_scratch<C>(device, {batch, length}, channels, states);
        checks.check(bytes >= before, "scratch of " + std::to_string(batch) + " x " + std::to_string(length));
        before = bytes;
      }
    }
    for (const Index batch : {1, 3, 66}) {
      std::size_t before = 0;
      for (Index length = 1; length < 3000; length += 13) {
        const std::size_t bytes = selective_scan_scratch<C>(device, {batch, length}, channels, states);
        checks.check(bytes >= before, "scratch of " + std::to_string(batch) + " x " + std::to_string(length));
        before = bytes;
      }
    }
  }
  // Packed sequences need no more than equally many of the longest.
  for (const auto& lengths : test::gpu::packed_lengths()) {
    const Shape packed = Shape::packed(lengths);
    for (const Index channels : {40, 2048}) {
      checks.check(selective_scan_scratch<C>(device, packed, channels, 16) <=
                       selective_scan_scratch<C>(device, {packed.batch, packed.length}, channels, 16),
                   "scratch of packed sequences");
    }
  }
  checks.group(test::gpu::types<C, C>() + ", scratch");
}

}  // namespace

/// With an argument, only short sequences: for tools under which kernels are many times slower.
int main(int arguments, char**) {
  return test::gpu::run([&](Checks& checks) {
    cuda::Device device;
    if (arguments > 1) {
      compare_shapes<float, float, 3>(device, checks, 130);
      compare_shapes<float, float, 16>(device, checks, 130);
      compare_shapes<bfloat16, bfloat16, 96>(device, checks, 130);
      compare_shapes<double, double, 20>(device, checks, 130);
      return;
    }
    check_scratch<float>(device, checks);
    check_scratch<bfloat16>(device, checks);
    compare_shapes<float, float, 1>(device, checks);
    compare_shapes<float, float, 3>(device, checks);
    compare_shapes<float, float, 16>(device, checks);
    compare_shapes<float, bfloat16, 16>(device, checks);
    compare_shapes<bfloat16, bfloat16, 3>(device, checks);
    compare_shapes<bfloat16, bfloat16, 16>(device, checks);
    compare_shapes<bfloat16, bfloat16, 64>(device, checks);
    compare_shapes<bfloat16, bfloat16, 96>(device, checks);
    compare_shapes<float, float, 96>(device, checks);
    compare_shapes<double, double, 3>(device, checks);
    compare_shapes<double, double, 16>(device, checks);
    compare_shapes<double, double, 20>(device, checks);
    // More blocks than multiprocessors, so that time is not divided into chunks.
    compare<float, float, 16>(device, checks, {300, 200}, 33, 9, true);
    compare<bfloat16, bfloat16, 16>(device, checks, {300, 200}, 36, 9, true);
    compare<double, double, 16>(device, checks, {300, 70}, 33, 10, false);
    checks.group("without chunks");
    compare_packed<float, float, 16>(device, checks);
    compare_packed<bfloat16, bfloat16, 16>(device, checks);
    compare_packed<bfloat16, bfloat16, 96>(device, checks);
    compare_packed<double, double, 20>(device, checks);
    compare_narrow<float, float, 1>(device, checks);
    compare_narrow<float, float, 16>(device, checks);
    compare_narrow<float, float, 32>(device, checks);
    compare_narrow<bfloat16, bfloat16, 3>(device, checks);
    compare_narrow<bfloat16, bfloat16, 16>(device, checks);
    compare_narrow<bfloat16, bfloat16, 32>(device, checks);
    compare_parts<float, float, 16>(device, checks);
    compare_parts<bfloat16, bfloat16, 16>(device, checks);
    compare_parts<double, double, 3>(device, checks);
    nan_goes_through<float>(device, checks);
    nan_goes_through<bfloat16>(device, checks);
  });
}
