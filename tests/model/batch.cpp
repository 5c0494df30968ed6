// The sequences of a batch are independent of each other.
#include <algorithm>
#include <numeric>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

/// Sequences `which` of a batch, concatenated.
template <class T>
std::vector<T> pick(const std::vector<T>& rows, Index size, const std::vector<Index>& which) {
  std::vector<T> result;
  for (const Index b : which) result.insert(result.end(), rows.begin() + b * size, rows.begin() + (b + 1) * size);
  return result;
}

template <class Definition, class S>
void check_batch(double bound) {
  using C = compute_t<S>;
  constexpr Index B = 5, L = 7;
  constexpr Index input_size = (test::Data<Definition, C>::takes_tokens ? 1 : Index{Definition::input_width}) * L;
  constexpr Index output_size = Definition::output_width * L;
  auto device = test::open(2);
  Bench<Definition, S> bench(device, {2 * B, L}, test::parameters<Definition>(), Purpose::inference);
  const auto inputs = test::data<Definition, C>({B, L}).inputs;
  const auto initial = test::random_states<Definition, S>(B);

  const auto run = [&](const std::vector<Index>& which, std::vector<C>& final_states) {
    const Index count = static_cast<Index>(which.size());
    States<Definition, S> states(count);
    for (Index b = 0; b < count; ++b) {
      const auto from = initial.sequence(which[static_cast<std::size_t>(b)]);
      std::copy(from.begin(), from.end(), states.sequence(b).begin());
    }
    const auto outputs = bench.forward(pick(inputs, input_size, which), {count, L}, &states);
    final_states.assign(states.values().begin(), states.values().end());
    return outputs;
  };

  std::vector<Index> all(B);
  std::iota(all.begin(), all.end(), Index{0});
  std::vector<C> states, other_states;
  const auto outputs = run(all, states);
  const auto check = [&](const std::vector<Index>& which) {
    const auto other = run(which, other_states);
    CHECK(test::relative_error(other, pick(outputs, output_size, which)) <= bound);
    CHECK(test::relative_error(other_states, pick(states, States<Definition, S>::state_size, which)) <= bound);
  };
  for (const Index b : all) check({b});  // alone
  check({4, 2, 0, 1, 3});                // permuted
  check({0, 1, 3, 4});                   // one removed
  check({0, 3, 1, 2, 3, 4, 3, 3});       // some added
}

/// Every call on batches without a sequence: there is nothing to compute, and sums are unchanged.
template <class Definition, class S>
void check_no_sequence() {
  using C = compute_t<S>;
  auto device = test::open(2);
  Bench<Definition, S> bench(device, {2, 4}, test::parameters<Definition>());
  const auto some = test::data<Definition, C>({2, 4});
  const auto expected = bench.gradient(some);
  const std::vector<Index> no_lengths;
  States<Definition, S> none(0), dnone(0);
  const auto check_losses = [](const Losses& losses) {
    CHECK(losses.targets == 0);
    CHECK(losses.total() == 0);
  };
  for (const Shape shape : {Shape{0, 4}, Shape{0, 1}, Shape{0, 0}, Shape::packed(no_lengths)}) {
    const auto data = test::data<Definition, C>(shape);
    const std::vector<C> ones(expected.size(), C(1));
    auto gradients = ones;
    CHECK(bench.forward(data.inputs, shape, &none).empty());
    bench.backward({}, gradients, {}, &dnone);
    CHECK(gradients == ones);
    CHECK(bench.forward_last(data.inputs, shape).empty());
    check_losses(bench.loss(data, &none));
    check_losses(bench.gradient(data, gradients, &none, &dnone));
    CHECK(gradients == ones);
    bench.workspace.visit_routers(
        [](const RouterReport& report) { CHECK(std::accumulate(report.load.begin(), report.load.end(), 0.0) == 0); });
  }
  CHECK(bench.step(none, {}).empty());
  CHECK(bench.gradient(some) == expected);
}

}  // namespace

TEST_CASE("A batch may have no sequence", "[model][batch]") {
  check_no_sequence<test::MixtureNet, float>();
  check_no_sequence<test::ManyWaysNet, double>();
  check_no_sequence<test::CapacityNet, bfloat16>();
  check_no_sequence<test::SeriesNet, double>();
  check_no_sequence<test::AttentionNet, float>();
}

TEST_CASE("A sequence does not depend on the rest of its batch", "[model][batch]") {
  // Rounding at most: rows may be summed in another order when there are few of them.
  check_batch<test::MixtureNet, double>(1e-13);
  check_batch<test::MixtureNet, float>(1e-5);
  check_batch<test::ManyWaysNet, double>(1e-13);
  check_batch<test::SeriesNet, double>(1e-13);
  check_batch<test::AttentionNet, double>(1e-13);
}

TEST_CASE("The gradient of a batch is the mean of its sequences' gradients", "[model][batch]") {
  // Without auxiliary losses, which depend on the whole batch.
  using Net = test::PlainMixture;
  const Shape shape{4, 6};
  auto device = test::open(2);
  Bench<Net> bench(device, shape, test::parameters<Net>());
  const auto data = test::data<Net, double>(shape);
  const auto gradients = bench.gradient(data);
  std::vector<double> mean(gradients.size());
  for (Index b = 0; b < shape.batch; ++b) {
    const auto one = bench.gradient(
        {{1, shape.length}, pick(data.inputs, shape.length, {b}), pick(data.targets, shape.length, {b})});
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += one[i] / static_cast<double>(shape.batch);
  }
  CHECK(test::relative_error(mean, gradients) <= 1e-13);
}

TEST_CASE("With a capacity limit the earliest tokens of a batch get the slots", "[model][batch]") {
  // This couples the tokens of a call, which is why dropless is the default.
  using Net = test::CapacityNet;
  auto device = test::open();
  Bench<Net> bench(device, {4, 6}, test::parameters<Net>(), Purpose::inference);
  const auto data = test::data<Net, double>({4, 6});
  double dropped = 0;
  (void)bench.forward(data.inputs, data.shape);
  bench.workspace.visit_routers([&](const RouterReport& report) {
    dropped = report.dropped;
    CHECK(std::accumulate(report.load.begin(), report.load.end(), 0.0) == 2 * 24);
    double over = 0;
    for (const double load : report.load) over += std::max(load - 9, 0.0);  // ceil(3/4 · 24 · 2 / 4)
    CHECK(report.dropped == over);
  });
  CHECK(dropped > 0);
}
