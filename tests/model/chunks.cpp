// A sequence processed whole, in chunks or step by step gives the same results, forward and backward.
#include <memory>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

/// The lengths of the chunks that the bits of `cuts` split a sequence into: bit i splits after step i.
std::vector<Index> chunks(Index length, unsigned cuts) {
  std::vector<Index> lengths{0};
  for (Index t = 0; t < length; ++t) {
    ++lengths.back();
    if (t + 1 < length && (cuts >> t & 1u) != 0) lengths.push_back(0);
  }
  return lengths;
}

/// Steps first … first + length - 1 of every sequence of `rows`, (B, L, columns).
template <class T>
std::vector<T> steps(const std::vector<T>& rows, Shape shape, Index columns, Index first, Index length) {
  std::vector<T> result;
  for (Index b = 0; b < shape.batch; ++b) {
    const auto begin = rows.begin() + (b * shape.length + first) * columns;
    result.insert(result.end(), begin, begin + length * columns);
  }
  return result;
}

template <class Definition>
constexpr Index input_columns = test::Data<Definition, double>::takes_tokens ? 1 : Index{Definition::input_width};

template <class Definition, class S>
void check_forward(Shape shape, unsigned stride, double bound) {
  using C = compute_t<S>;
  auto device = test::open();
  Bench<Definition, S> bench(device, shape, test::parameters<Definition>(), Purpose::inference);
  const auto data = test::data<Definition, C>(shape);
  const auto initial = test::random_states<Definition, S>(shape.batch);
  auto whole_states = initial;
  const auto whole = bench.forward(data.inputs, shape, &whole_states);
  const std::vector<C> end(whole_states.values().begin(), whole_states.values().end());
  constexpr Index O = Definition::output_width;

  for (unsigned cuts = 0; cuts < 1u << (shape.length - 1); cuts += stride) {
    INFO("split after the steps of the bits of " << cuts);
    auto states = initial;
    Index first = 0;
    for (const Index length : chunks(shape.length, cuts)) {
      const auto inputs = steps(data.inputs, shape, input_columns<Definition>, first, length);
      const auto outputs = bench.forward(inputs, {shape.batch, length}, &states);
      CHECK(test::relative_error(outputs, steps(whole, shape, O, first, length)) <= bound);
      first += length;
    }
    CHECK(test::relative_error(std::vector<C>(states.values().begin(), states.values().end()), end) <= bound);
  }

  // Steps, each through step(), and a prompt through forward_last().
  auto states = initial;
  for (Index t = 0; t < shape.length; ++t) {
    const auto inputs = steps(data.inputs, shape, input_columns<Definition>, t, 1);
    CHECK(test::relative_error(bench.step(states, inputs), steps(whole, shape, O, t, 1)) <= bound);
  }
  states = initial;
  CHECK(test::relative_error(bench.forward_last(data.inputs, shape, &states),
                             steps(whole, shape, O, shape.length - 1, 1)) <= bound);
  CHECK(states == whole_states);
}

/// The gradient of Σ doutputs · outputs over chunks of the given lengths: all forward passes, then the backward passes
/// from the last chunk to the first, passing on the gradient with respect to the states.
template <class Definition>
void check_truncated(Shape shape, const std::vector<Index>& lengths) {
  INFO(lengths.size() << " chunks of " << shape.length << " steps, the first of " << lengths.front());
  constexpr Index O = Definition::output_width;
  auto device = test::open();
  const auto parameters = test::parameters<Definition>();
  const auto data = test::data<Definition, double>(shape);
  const auto doutputs = test::uniform<double>(shape.tokens() * O, 5);
  const auto initial = test::random_states<Definition, double>(shape.batch);
  const auto final_gradient = test::random_states<Definition, double>(shape.batch, 2);

  Bench<Definition> whole(device, shape, parameters);
  auto states = initial, dstates = final_gradient;
  std::vector<double> gradients(parameters.size());
  (void)whole.forward(data.inputs, shape, &states);
  whole.backward(doutputs, gradients, {}, &dstates);

  std::vector<std::unique_ptr<Bench<Definition>>> benches;  // a tape for each chunk
  auto chunk_states = initial, chunk_dstates = final_gradient;
  std::vector<double> chunk_gradients(parameters.size());
  Index first = 0;
  for (const Index length : lengths) {
    benches.push_back(
        std::make_unique<Bench<Definition>>(device, Shape{shape.batch, std::max<Index>(length, 1)}, parameters));
    (void)benches.back()->forward(steps(data.inputs, shape, input_columns<Definition>, first, length),
                                  {shape.batch, length}, &chunk_states);
    first += length;
  }
  for (std::size_t chunk = lengths.size(); chunk-- > 0;) {
    first -= lengths[chunk];
    benches[chunk]->backward(steps(doutputs, shape, O, first, lengths[chunk]), chunk_gradients, {}, &chunk_dstates);
  }
  const auto numbers = [](const States<Definition, double>& values) {
    return std::vector<double>(values.values().begin(), values.values().end());
  };
  CHECK(test::relative_error(chunk_gradients, gradients) <= 1e-11);
  CHECK(test::relative_error(numbers(chunk_states), numbers(states)) <= 1e-12);
  CHECK(test::relative_error(numbers(chunk_dstates), numbers(dstates)) <= 1e-11);
}

}  // namespace

TEST_CASE("Every split of nine steps into chunks gives the same outputs and states", "[model][chunks]") {
  // In double some hundred roundings of 2⁻⁵³, in float of 2⁻²⁴.
  check_forward<test::MambaNet, double>({2, 9}, 1, 1e-12);
  check_forward<test::MixtureNet, double>({2, 9}, 1, 1e-12);
  check_forward<test::ManyWaysNet, double>({2, 9}, 7, 1e-12);
  check_forward<test::SeriesNet, double>({2, 9}, 7, 1e-12);
  check_forward<test::AttentionNet, double>({2, 9}, 1, 1e-12);
  check_forward<test::MixtureNet, float>({2, 9}, 1, 1e-5);
  check_forward<test::AttentionNet, float>({2, 9}, 7, 1e-5);
}

TEST_CASE("Gradients of chained chunks are those of the whole sequence", "[model][chunks]") {
  for (unsigned cuts = 0; cuts < 256; cuts += 15) {
    check_truncated<test::MambaNet>({2, 9}, chunks(9, cuts));
    check_truncated<test::PlainMixture>({2, 9}, chunks(9, cuts));
    check_truncated<test::AttentionNet>({2, 9}, chunks(9, cuts));
  }
  check_truncated<test::MambaNet>({2, 9}, {4, 0, 5, 0});
  // Across the chunks that the scan recomputes, whose boundaries depend on how the sequence is split.
  check_truncated<test::PlainMixture>({1, 200}, {63, 1, 65, 71});
}
