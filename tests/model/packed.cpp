// Sequences of different lengths packed end to end: each equals the sequence alone, forward and backward.
#include <limits>
#include <numeric>
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

/// Lengths around every edge: zero, one, those around the chunks of the scan and the taps of the convolution.
const std::vector<Index> lengths{5, 1, 0, 33, 2, 64, 3, 31};

/// Part of a vector.
template <class T>
std::vector<T> part(const std::vector<T>& values, Index first, Index count) {
  return {values.begin() + first, values.begin() + first + count};
}

template <class Definition, class S>
void check_packed(double bound) {
  using C = compute_t<S>;
  constexpr Index O = Definition::output_width;
  constexpr Index I = test::Data<Definition, C>::takes_tokens ? 1 : Index{Definition::input_width};
  const Shape shape = Shape::packed(lengths);
  REQUIRE(shape.tokens() == std::accumulate(lengths.begin(), lengths.end(), Index{0}));
  const Index count = shape.batch;
  auto device = test::open(2);
  // More sequences than the workspace was made for, but no more memory.
  Bench<Definition, S> packed(device, {4, 64}, test::parameters<Definition>());
  Bench<Definition, S> alone(device, {1, 64}, test::parameters<Definition>());
  const auto data = test::data<Definition, C>(shape);
  const auto initial = test::random_states<Definition, S>(count);
  const auto final_gradient = test::random_states<Definition, S>(count, 2);
  const auto doutputs = test::uniform<C>(shape.tokens() * O, 5);

  auto states = initial, dstates = final_gradient;
  const auto outputs = packed.forward(data.inputs, shape, &states);
  std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters)), sum(gradients.size());
  packed.backward(doutputs, gradients, {}, &dstates);

  Index row = 0;
  for (Index b = 0; b < count; ++b) {
    const Index length = lengths[static_cast<std::size_t>(b)];
    INFO("sequence " << b << " of " << length);
    const auto one = [&](const States<Definition, S>& from) {
      States<Definition, S> state(1);
      const auto values = from.sequence(b);
      std::copy(values.begin(), values.end(), state.values().begin());
      return state;
    };
    auto state = one(initial), dstate = one(final_gradient);
    const auto expected = alone.forward(part(data.inputs, row * I, length * I), {1, length}, &state);
    alone.backward(part(doutputs, row * O, length * O), sum, {}, &dstate);
    CHECK(test::relative_error(part(outputs, row * O, length * O), expected) <= bound);
    CHECK(test::relative_error(test::numbers(one(states)), test::numbers(state)) <= bound);
    CHECK(test::relative_error(test::numbers(one(dstates)), test::numbers(dstate)) <= 10 * bound);
    row += length;
  }
  CHECK(test::relative_error(gradients, sum) <= 10 * bound);

  // Prompts: the outputs after the last token of each.
  const std::vector<Index> prompts{5, 1, 33, 2};
  const Shape some = Shape::packed(prompts);
  States<Definition, S> read(some.batch);
  const auto inputs = part(data.inputs, 0, some.tokens() * I);
  const auto all = packed.forward(inputs, some), last = packed.forward_last(inputs, some, &read);
  row = 0;
  for (Index b = 0; b < some.batch; ++b) {
    row += prompts[static_cast<std::size_t>(b)];
    CHECK(test::relative_error(part(last, b * O, O), part(all, (row - 1) * O, O)) <= bound);
  }
}

}  // namespace

TEST_CASE("A packed sequence equals the sequence alone", "[model][packed]") {
  // Without auxiliary losses, which depend on the whole batch.
  check_packed<test::MambaNet, double>(1e-12);
  check_packed<test::PlainMixture, double>(1e-12);
  check_packed<test::FilterNet, double>(1e-12);
  check_packed<test::AttentionNet, double>(1e-12);
  check_packed<test::PlainMixture, float>(1e-5);
}

TEST_CASE("The loss of a packed batch is the mean over all its targets", "[model][packed]") {
  using Net = test::PlainMixture;
  auto device = test::open();
  Bench<Net> bench(device, {3, 20}, test::parameters<Net>());
  PackedBatch batch;
  double sum = 0;
  Index targets = 0;
  for (const Index size : {2, 9, 21}) {
    const auto text = test::data<Net, double>({1, size}, static_cast<std::uint64_t>(size)).inputs;
    const Index prompt = size / 3 + 1;
    batch.add(text, prompt);
    PackedBatch one;
    one.add(text, prompt);
    const TokenBatch single = one.batch();
    const Losses losses = bench.loss(
        {single.shape, {single.inputs.begin(), single.inputs.end()}, {single.targets.begin(), single.targets.end()}});
    CHECK(losses.targets == size - prompt);
    sum += losses.prediction * static_cast<double>(losses.targets);
    targets += losses.targets;
  }
  const TokenBatch packed = batch.batch();
  const Losses losses = bench.loss(
      {packed.shape, {packed.inputs.begin(), packed.inputs.end()}, {packed.targets.begin(), packed.targets.end()}});
  CHECK(losses.targets == targets);
  CHECK(losses.prediction == Approx(sum / static_cast<double>(targets)).epsilon(1e-12));
}

TEST_CASE("A trainer accepts packed batches of any lengths, and padded ones once packed", "[train][packed]") {
  using Net = test::UnbalancedNet;
  test::ModelOf<Net, double> model(Seed{1}), twin(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.clip_norm = 0}),
      other(twin, AdamW{}, Constant{}, TrainerOptions{.clip_norm = 0});
  for (const auto& sizes :
       {std::vector<Index>{3, 7}, std::vector<Index>{40, 2, 2, 2, 2, 2, 2, 90}, std::vector<Index>{4}}) {
    PackedBatch packed, unpadded;
    const Index longest = *std::max_element(sizes.begin(), sizes.end()) - 1;
    std::vector<Token> inputs, targets;
    std::vector<Index> counts;
    for (const Index size : sizes) {
      const auto text = test::data<Net, double>({1, size}, static_cast<std::uint64_t>(size)).inputs;
      packed.add(text);
      inputs.insert(inputs.end(), text.begin(), text.end() - 1);
      targets.insert(targets.end(), text.begin() + 1, text.end());
      inputs.resize(inputs.size() + static_cast<std::size_t>(longest - size + 1), 0);
      targets.resize(inputs.size(), 5);
      counts.push_back(size - 1);
    }
    unpadded.add_padded(inputs, targets, {static_cast<Index>(sizes.size()), longest}, counts);
    const StepReport report = trainer.step(packed.batch());
    CHECK(report.applied);
    CHECK(report.loss == other.step(unpadded.batch()).loss);
  }
  CHECK(test::numbers(model) == test::numbers(twin));
}

TEST_CASE("Impossible packed shapes are refused", "[model][packed]") {
  using Net = test::MixtureNet;
  auto device = test::open();
  Bench<Net> bench(device, {2, 8}, test::parameters<Net>());
  const std::vector<Token> tokens(40, 1);
  const auto refuses = [&](const std::vector<Index>& sizes, const char* what) {
    INFO(what);
    const Shape shape = Shape::packed(sizes);
    CHECK_THROWS_WITH(
        bench.forward(std::vector<Token>(static_cast<std::size_t>(std::max<Index>(shape.total, 0)), 1), shape),
        test::Contains(what));
  };
  refuses({4, -1}, "length is -1");
  refuses({10, 10, 20}, "too small");
  const std::vector<Index> endless(4, Index{1} << 62);  // whose sum overflows an Index
  CHECK(Shape::packed(endless).total == std::numeric_limits<Index>::max());
  CHECK_THROWS_WITH(decltype(bench.workspace)::check_shape(Shape::packed(endless)), test::Contains("more than 2^40"));
  Shape wrong = Shape::packed(lengths);
  wrong.total = 16;
  CHECK_THROWS_WITH(bench.forward(part(tokens, 0, 16), wrong), test::Contains("shape.total is 16"));
  PackedBatch batch;
  CHECK_THROWS_WITH(batch.add(part(tokens, 0, 1)), test::Contains("text.size() is 1"));
  CHECK_THROWS_WITH(batch.add(part(tokens, 0, 4), 4), test::Contains("prompt is 4"));
  CHECK_THROWS_WITH(batch.add(part(tokens, 0, 4), part(tokens, 0, 3)), test::Contains("targets.size() is 3"));
  const std::vector<Index> sizes{4, 9};
  CHECK_THROWS_WITH(batch.add_padded(part(tokens, 0, 16), part(tokens, 0, 16), {2, 8}, sizes),
                    test::Contains("a length is 9"));
  CHECK(batch.size() == 0);
}
