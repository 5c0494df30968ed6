// Equal inputs give equal bits, independent of the number of threads and of earlier computations.
#include <cstring>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

/// Large enough that every operation splits its work, with sizes that are not multiples of any block size.
using Wide =
    LanguageModel<Vocabulary<301>, Width<72>, Repeat<2, Mamba<State<16>>, Moe<Experts<5>, TopK<2>, Hidden<99>, SwiGlu>>,
                  Mamba<State<16>, InputExperts<3>, GateExperts<3>, OutputExperts<3>>>;
using WideSeries = SequenceModel<Inputs<5>, Outputs<3>, Width<40>, PreNorm<LayerNorm<>>, Mamba<State<5>>, Mlp<>,
                                 Parallel<Mamba<State<3>, InputExperts<3>, GateExperts<2>, OutputExperts<4>,
                                                SeparateRouters, Hidden<53>, Capacity<1>>,
                                          Moe<Experts<3>, Hidden<64>, Gelu, Capacity<1>>>>;

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class C>
struct Bits {
  std::vector<C> outputs, states, gradients, dstates;
  double loss = 0, auxiliary = 0;

  bool operator==(const Bits& other) const {
    return same_bits(outputs, other.outputs) && same_bits(states, other.states) &&
           same_bits(gradients, other.gradients) && same_bits(dstates, other.dstates) && loss == other.loss &&
           auxiliary == other.auxiliary;
  }
};

template <class Definition, class S>
Bits<compute_t<S>> run(Bench<Definition, S>& bench, const test::Data<Definition, compute_t<S>>& data) {
  using C = compute_t<S>;
  Bits<C> bits;
  const auto initial = test::random_states<Definition, S>(data.shape.batch);
  auto states = initial, dstates = test::random_states<Definition, S>(data.shape.batch, 2);
  bits.outputs = bench.forward(data.inputs, data.shape, &states);
  bits.states.assign(states.values().begin(), states.values().end());
  states = initial;
  bits.gradients.resize(static_cast<std::size_t>(Definition::parameters));
  const Losses losses = bench.gradient(data, bits.gradients, &states, &dstates);
  bits.loss = losses.prediction;
  bits.auxiliary = losses.auxiliary;
  bits.dstates.assign(dstates.values().begin(), dstates.values().end());
  return bits;
}

template <class Definition, class S>
void check_threads(Shape shape) {
  INFO("B = " << shape.batch << ", L = " << shape.length);
  using C = compute_t<S>;
  const auto parameters = test::parameters<Definition>();
  const auto data = test::data<Definition, C>(shape), other = test::data<Definition, C>(shape, 7);
  Cpu one;
  Bench<Definition, S> bench(one, shape, parameters);
  const auto expected = run(bench, data);
  CHECK(std::isfinite(expected.loss));
  for (const int threads : {1, 2, 3}) {
    INFO(threads << " threads");
    Cpu device(Threads{threads});
    Bench<Definition, S> again(device, shape, parameters);
    CHECK(run(again, data) == expected);
    CHECK_FALSE(run(again, other) == expected);
    CHECK(run(again, data) == expected);  // independent of the workspace's contents
  }
}

}  // namespace

TEST_CASE("1, 2 and 3 threads give the same bits", "[model][threads]") {
  check_threads<Wide, float>({3, 67});
  check_threads<Wide, float>({1, 1});
  check_threads<WideSeries, double>({1, 131});
  check_threads<WideSeries, double>({9, 2});
}

TEST_CASE("1, 2 and 3 threads give the same bits with parameters in bfloat16", "[model][threads]") {
  check_threads<Wide, bfloat16>({2, 33});
}
