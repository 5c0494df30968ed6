// A sequence of more than 100,000 steps, whole and in chunks.
#include <algorithm>
#include <memory>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

// Without auxiliary losses, which are means over a call.
using Net = SequenceModel<Inputs<2>, Outputs<2>, Width<3>, Repeat<2, Mamba<State<2>, Expand<2>>>,
                          Moe<Experts<3>, Hidden<4>, Silu, BalanceLoss<0>>>;
constexpr Index length = 100'003;

/// Random lengths that add up, some of them 1.
std::vector<Index> chunks(Index longest) {
  Random random(Seed{9});
  std::vector<Index> lengths;
  for (Index left = length; left > 0; left -= lengths.back()) {
    const Index draw = static_cast<Index>(random.below(static_cast<std::uint64_t>(longest)));
    lengths.push_back(std::min(std::max<Index>(draw, 1), left));
  }
  return lengths;
}

template <class S>
void check_chunks(double bound) {
  using C = compute_t<S>;
  auto device = test::open(2);
  const auto parameters = test::parameters<Net>();
  const auto inputs = test::uniform<C>(length * Net::input_width, 3);
  Bench<Net, S> whole(device, {1, length}, parameters, Purpose::inference);
  States<Net, S> whole_states;
  const auto expected = whole.forward(inputs, {1, length}, &whole_states);

  for (const Index longest : {Index{1}, Index{1000}, Index{70'000}}) {
    INFO("chunks of up to " << longest);
    Bench<Net, S> bench(device, {1, longest}, parameters, Purpose::inference);
    States<Net, S> states;
    auto outputs = test::poison<C>(length * Net::output_width);
    Index first = 0;
    for (const Index steps : chunks(longest)) {
      bench.forward(std::span(inputs).subspan(static_cast<std::size_t>(first * Net::input_width),
                                              static_cast<std::size_t>(steps * Net::input_width)),
                    {1, steps},
                    std::span(outputs).subspan(static_cast<std::size_t>(first * Net::output_width),
                                               static_cast<std::size_t>(steps * Net::output_width)),
                    &states);
      first += steps;
    }
    CHECK(test::relative_error(outputs, expected) <= bound);
    CHECK(test::relative_error(std::vector<C>(states.values().begin(), states.values().end()),
                               std::vector<C>(whole_states.values().begin(), whole_states.values().end())) <= bound);
  }
}

}  // namespace

TEST_CASE("A sequence of 100,003 steps is the same whole and in chunks", "[model][long]") {
  // States decay, so rounding errors do not accumulate over the length.
  check_chunks<double>(1e-12);
  check_chunks<float>(1e-4);
}

TEST_CASE("The gradient of a sequence of 100,003 steps equals that of its chunks", "[model][long]") {
  auto device = test::open(2);
  const auto parameters = test::parameters<Net>();
  const auto inputs = test::uniform<double>(length * Net::input_width, 3);
  const auto doutputs = test::uniform<double>(length * Net::output_width, 4);
  const auto part = [](const std::vector<double>& values, Index columns, Index first, Index steps) {
    return std::vector<double>(values.begin() + first * columns, values.begin() + (first + steps) * columns);
  };
  const auto run = [&](const std::vector<Index>& lengths) {
    std::vector<std::unique_ptr<Bench<Net>>> benches;
    States<Net, double> states, dstates;
    std::vector<double> gradients(parameters.size());
    Index first = 0;
    for (const Index steps : lengths) {
      benches.push_back(std::make_unique<Bench<Net>>(device, Shape{1, steps}, parameters));
      (void)benches.back()->forward(part(inputs, Net::input_width, first, steps), {1, steps}, &states);
      first += steps;
    }
    for (std::size_t chunk = lengths.size(); chunk-- > 0;) {
      first -= lengths[chunk];
      benches[chunk]->backward(part(doutputs, Net::output_width, first, lengths[chunk]), gradients, {}, &dstates);
    }
    return gradients;
  };
  // Sums of 100,003 terms in different orders: about a hundred roundings of 2⁻⁵³ of the largest partial sum.
  CHECK(test::relative_error(run({40'000, 60'002, 1}), run({length})) <= 1e-11);
}
