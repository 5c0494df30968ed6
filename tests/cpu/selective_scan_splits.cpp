#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/selective_scan_problem.hpp"
#include "support/catch.hpp"

using namespace test::scan;
using test::relative_error;

namespace {

template <class T>
void append(std::vector<T>& to, const std::vector<T>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

/// The chunks that end at `ends`, forward with the state carried over, then backward with its gradient carried back.
template <class C, class S, int N>
void run_chunks(const Problem<C, S, N>& whole, const std::vector<Index>& ends, Outputs<C>& out, Gradients<C>& g) {
  cpu::Device device;
  std::vector<Problem<C, S, N>> parts;
  std::vector<Outputs<C>> outputs;
  out = {{}, whole.state, {}};
  for (std::size_t i = 0; i < ends.size(); ++i) {
    const Index first = i == 0 ? 0 : ends[i - 1];
    parts.push_back(whole.part(0, first, ends[i] - first));
    parts.back().state = out.state;
    outputs.push_back(parts.back().forward(device));
    append(out.y, outputs.back().y);
    out.state = outputs.back().state;
  }
  g.dstate = whole.dstate;
  g.dbias = test::uniform<C>(whole.channels, 1);
  g.da_log = test::uniform<C>(whole.channels * N, 2);
  g.dd = test::uniform<C>(whole.channels, 3);
  std::vector<Gradients<C>> gradients(ends.size());
  for (std::size_t i = ends.size(); i-- > 0;) {
    parts[i].dstate = g.dstate;
    gradients[i] = parts[i].backward(device, outputs[i].checkpoints);
    g.dstate = gradients[i].dstate;
    const auto add = [](std::vector<C>& sum, const std::vector<C>& values, std::uint64_t seed) {
      const auto start = test::uniform<C>(static_cast<Index>(sum.size()), seed);  // the values to which the call added
      for (std::size_t k = 0; k < sum.size(); ++k) sum[k] += values[k] - start[k];
    };
    add(g.dbias, gradients[i].dbias, 1);
    add(g.da_log, gradients[i].da_log, 2);
    add(g.dd, gradients[i].dd, 3);
  }
  for (const auto& part : gradients) {
    append(g.du, part.du), append(g.ddelta, part.ddelta), append(g.dz, part.dz);
    append(g.db, part.db), append(g.dc, part.dc);
  }
}

}  // namespace

TEST_CASE("chunks with the state carried give the bits of the whole, and their gradients add up to its",
          "[cpu][scan]") {
  const Problem<float, float, 16> whole({1, 17}, 19, 21);
  const Problem<double, double, 3> precise({1, 17}, 5, 22);
  cpu::Device device;
  const auto expected = whole.forward(device);
  const auto precise_expected = precise.forward(device);
  const auto precise_gradients = precise.backward(device, precise_expected.checkpoints);
  const auto check = [&](const std::vector<Index>& ends) {
    Outputs<float> out;
    Gradients<float> ignored;
    run_chunks(whole, ends, out, ignored);
    CHECK(same_bits(out.y, expected.y));
    CHECK(same_bits(out.state, expected.state));
    Outputs<double> precise_out;
    Gradients<double> gradients;
    run_chunks(precise, ends, precise_out, gradients);
    CHECK(same_bits(precise_out.y, precise_expected.y));
    gradients.with(precise_gradients, [](const char* name, const auto& actual, const auto& exact) {
      CAPTURE(name);
      CHECK(relative_error(actual, exact) < 1e-13);
    });
  };
  for (Index split = 0; split <= 17; ++split) check({split, 17});
  check({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17});
  Random random(Seed{5});
  for (int i = 0; i < 20; ++i) {
    std::vector<Index> ends;
    for (Index t = 1; t < 17; ++t) {
      if (random.uniform() < 0.3) ends.push_back(t);
    }
    ends.push_back(17);
    check(ends);
  }
}

TEST_CASE("a scan over a hundred thousand steps equals its chunks", "[cpu][scan]") {
  constexpr Index length = 100'003;
  const Problem<float, float, 3> whole({1, length}, 9, 31);
  cpu::Device device;
  const auto expected = whole.forward(device);
  const auto expected_gradients = whole.backward(device, expected.checkpoints);
  Outputs<float> out;
  Gradients<float> gradients;
  run_chunks(whole, {1, 64, 4097, 50'000, 99'999, length}, out, gradients);
  CHECK(same_bits(out.y, expected.y));
  CHECK(same_bits(out.state, expected.state));
  // Parameters' gradients are sums of 10^5 terms, in float, in another order; the others are not.
  gradients.with(expected_gradients, [](const char* name, const auto& actual, const auto& exact) {
    CAPTURE(name);
    CHECK(relative_error(actual, exact) < 1e-3);
  });
  CHECK(relative_error(gradients.du, expected_gradients.du) < 1e-5);
  CHECK(relative_error(gradients.db, expected_gradients.db) < 1e-5);
}

TEST_CASE("the number of threads does not change a bit of the selective scan", "[cpu][scan]") {
  const Problem<float, float, 16> problem({3, 70}, 203, 41);
  cpu::Device one;
  const auto expected = problem.forward(one);
  const auto gradients = problem.backward(one, expected.checkpoints);
  for (int threads : {2, 3}) {
    cpu::Device device(Threads{threads});
    const auto out = problem.forward(device);
    CHECK(same_bits(out.y, expected.y));
    CHECK(same_bits(out.state, expected.state));
    CHECK(same_bits(out.checkpoints, expected.checkpoints));
    problem.backward(device, out.checkpoints).with(gradients, [](const char* name, const auto& a, const auto& b) {
      CAPTURE(name);
      CHECK(same_bits(a, b));
    });
  }
}

TEST_CASE("a sequence scanned in a batch has the same bits as alone", "[cpu][scan]") {
  for (Index length : {1, 2, 66}) {
    const Problem<float, bfloat16, 16> batch({3, length}, 21, 51);
    cpu::Device device(Threads{2});
    const auto out = batch.forward(device);
    const auto gradients = batch.backward(device, out.checkpoints);
    for (Index s = 0; s < 3; ++s) {
      const auto single = batch.part(s, 0, length);
      const auto alone = single.forward(device);
      const auto alone_gradients = single.backward(device, alone.checkpoints);
      const auto part = [&](const std::vector<float>& all, Index size) {
        return std::vector<float>(all.begin() + s * size, all.begin() + (s + 1) * size);
      };
      CHECK(same_bits(part(out.y, length * 21), alone.y));
      CHECK(same_bits(part(out.state, batch.state_stride), alone.state));
      CHECK(same_bits(part(gradients.du, length * 21), alone_gradients.du));
      CHECK(same_bits(part(gradients.ddelta, length * 21), alone_gradients.ddelta));
      CHECK(same_bits(part(gradients.dz, length * 21), alone_gradients.dz));
      CHECK(same_bits(part(gradients.db, length * 16), alone_gradients.db));
      CHECK(same_bits(part(gradients.dc, length * 16), alone_gradients.dc));
      CHECK(same_bits(part(gradients.dstate, batch.state_stride), alone_gradients.dstate));
    }
  }
}

TEST_CASE("a missing state counts as zero, forward and backward", "[cpu][scan]") {
  Problem<double, double, 3> problem({2, 70}, 5, 61);
  std::fill(problem.state.begin(), problem.state.end(), 0.0);
  std::fill(problem.dstate.begin(), problem.dstate.end(), 0.0);
  cpu::Device device;
  const auto with = problem.forward(device), without = problem.forward(device, false);
  CHECK(same_bits(with.y, without.y));
  CHECK(same_bits(without.state, problem.state));
  const auto gradients = problem.backward(device, with.checkpoints, false);
  CHECK(same_bits(gradients.du, problem.backward(device, with.checkpoints).du));
  CHECK(same_bits(gradients.dstate, problem.dstate));
}
