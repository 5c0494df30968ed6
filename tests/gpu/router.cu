#include "gpu/operations.cuh"
#include "moe_mamba/cuda/router.cuh"

using namespace moe_mamba;

namespace {

/// Logits with some ties, within a token and with its largest.
template <class C>
std::vector<C> draw_logits(Index tokens, Index stride) {
  auto logits = test::uniform<C>(tokens * stride, 1, -4, 4);
  for (std::size_t i = 0; i + 3 < logits.size(); i += 5) logits[i + 3] = logits[i];
  for (std::size_t i = 0; i < logits.size(); i += 97) logits[i] = i % 2 == 0 ? C(0) : C(-0.0);
  return logits;
}

/// How gates are computed, and whether a bias affects the choice.
struct Gates {
  GateOrder order;
  bool biased = false, normalised = false;
  double scale = 1;
};

template <class C, int Experts, int TopK>
void check_router(test::Report& report, Gates way) {
  const std::string kind =
      (way.biased ? "biased " : "") + std::to_string(TopK) + " of " + std::to_string(Experts) + ", ";
  for (const Index tokens : {0, 1, 31, 32, 33, 127, 128, 129, 1031, 20011}) {
    // Among many sums of a score and a bias, some differ only by rounding.
    if (tokens * Experts > (way.biased ? 200'000 : 2'000'000)) continue;
    const Index stride = Experts + 1, assignments = tokens * TopK;
    // Every third token is not counted if the number of tokens is odd.
    const bool masked = tokens % 2 == 1;
    std::vector<Token> targets;
    for (Index t = 0; t < tokens; ++t) targets.push_back(t % 3 == 1 ? masked_target : 5);
    // Errors of exponentials, their sum and its logarithm; sums over the tokens are in double, plain ones in the
    // reference.
    const double sum_rounding = 2 * std::sqrt(double(tokens)) * test::rounding<double>;
    report.check(
        "route " + kind + std::to_string(tokens), 40 * test::rounding<C> + sum_rounding,
        std::make_tuple(draw_logits<C>(tokens, stride), test::poison<C>(tokens * Experts), test::poison<C>(tokens),
                        std::vector<Index>(std::size_t(assignments), -7), test::poison<C>(assignments),
                        test::poison<double>(Experts), test::poison<double>(Experts), test::poison<double>(3), targets,
                        test::uniform<C>(Experts, 7, -0.3, 0.3), std::vector<C>(std::size_t(assignments))),
        [&](auto& device, const auto* logits, auto* probabilities, auto* log_sum_exp, Index* experts, auto* gates,
            double* load, double* probability, double* statistics, const Token* goals, const auto* bias,
            auto* sigmoids) {
          using Compute = std::remove_pointer_t<decltype(gates)>;
          route(device, Router<Compute, Experts, TopK>{.order = way.order,
                                                       .logits = {logits, tokens, Experts, stride},
                                                       .probabilities = matrix(probabilities, tokens, Index{Experts}),
                                                       .log_sum_exp = log_sum_exp,
                                                       .experts = experts,
                                                       .gates = gates,
                                                       .load = load,
                                                       .probability = probability,
                                                       .entropy = statistics,
                                                       .square_log_sum_exp = statistics + 1,
                                                       .counted = statistics + 2,
                                                       .targets = masked ? goals : nullptr,
                                                       .selection_bias = way.biased ? bias : nullptr,
                                                       .normalised = way.normalised,
                                                       .scale = way.scale,
                                                       .sigmoids = sigmoids});
        });

    // The backward pass works with any probabilities, gates and distinct experts.
    Random random(Seed{5});
    std::vector<Index> experts;
    for (Index t = 0; t < tokens; ++t) {
      const auto first = static_cast<Index>(random.below(Experts));
      for (int k = 0; k < TopK; ++k) experts.push_back((first + k) % Experts);
    }
    report.check("router backward " + kind + std::to_string(tokens), 40 * test::rounding<C>,
                 std::make_tuple(test::uniform<C>(tokens * Experts, 2, 0, 1), test::uniform<C>(tokens, 3), experts,
                                 test::uniform<C>(assignments, 4, 0, 1), test::uniform<C>(assignments, 5),
                                 test::uniform<double>(Experts, 6, 0, 100), test::poison<C>(tokens * Experts),
                                 std::vector<double>{std::floor(double(tokens) / 2)}, targets,
                                 test::uniform<C>(assignments, 8, 0, 1)),
                 [&](auto& device, const auto* probabilities, const auto* log_sum_exp, const Index* chosen,
                     const auto* gates, const auto* dgates, const double* load, auto* dlogits, const double* counted,
                     const Token* goals, const auto* sigmoids) {
                   using Compute = std::remove_pointer_t<decltype(dlogits)>;
                   router_backward(device, RouterBackward<Compute, Experts, TopK>{
                                               .order = way.order,
                                               .probabilities = test::fixed(probabilities, tokens, Index{Experts}),
                                               .log_sum_exp = log_sum_exp,
                                               .experts = chosen,
                                               .gates = gates,
                                               .load = load,
                                               .dgates = dgates,
                                               .balance = 0.3,
                                               .z = 0.2,
                                               .dlogits = matrix(dlogits, tokens, Index{Experts}),
                                               .counted = counted,
                                               .targets = masked ? goals : nullptr,
                                               .normalised = way.normalised,
                                               .scale = way.scale,
                                               .sigmoids = sigmoids});
                 });
  }
}

template <class C, int Experts, int TopK>
void check_orders(test::Report& report) {
  for (const bool biased : {false, true}) {
    check_router<C, Experts, TopK>(report, {GateOrder::softmax_then_top_k, biased});
    check_router<C, Experts, TopK>(report, {GateOrder::top_k_then_softmax, biased});
    check_router<C, Experts, TopK>(report, {GateOrder::sigmoid_then_top_k, biased});
    check_router<C, Experts, TopK>(report, {GateOrder::sigmoid_then_top_k, biased, true, 2.5});
    check_router<C, Experts, TopK>(report, {GateOrder::softmax_then_top_k, biased, false, 0.5});
  }
}

/// A NaN among the logits: the experts of its token are distinct and within range, its results are NaN.
void check_nan(test::Report& report, cuda::Device& device) {
  constexpr int experts = 40, top_k = 40;
  auto logits = test::uniform<float>(3 * experts, 1);
  logits[experts + 7] = logits[experts + 30] = NAN;
  bool intact = true;
  const test::Guarded<float> from(logits), probabilities(test::poison<float>(3 * experts)),
      log_sum_exp(test::poison<float>(3)), gates(test::poison<float>(3 * top_k));
  const test::Guarded<Index> chosen(std::vector<Index>(3 * top_k, -1));
  const test::Guarded<double> sums(test::poison<double>(2 * experts + 3));
  route(device,
        Router<float, experts, top_k>{GateOrder::softmax_then_top_k, test::fixed(from.data(), 3, experts),
                                      matrix(probabilities.data(), 3, experts), log_sum_exp.data(), chosen.data(),
                                      gates.data(), sums.data(), sums.data() + experts, sums.data() + 2 * experts,
                                      sums.data() + 2 * experts + 1, sums.data() + 2 * experts + 2});
  device.synchronize();
  const auto indices = chosen.read(intact);
  for (int t = 0; t < 3; ++t) {
    std::vector<int> seen(experts);
    for (int k = 0; k < top_k; ++k) {
      const Index e = indices[std::size_t(t * top_k + k)];
      report.expect("expert within range", e >= 0 && e < experts);
      if (e >= 0 && e < experts) ++seen[std::size_t(e)];
    }
    for (const int count : seen) report.expect("experts differ", count == 1);
  }
  const auto p = probabilities.read(intact);
  report.expect("NaN comes out", std::isnan(p[experts]) && !std::isnan(p[0]) && !std::isnan(p[2 * experts]) && intact);
}

/// Biases of two routers among other parameters: equal to the reference's, bit for bit.
template <class S>
void check_selection_biases(test::Report& report, cuda::Device& device) {
  constexpr bool halved = SelectionBiasUpdate<S>::keeps_remainder;
  constexpr int few = 5, many = 700;
  const std::vector<SelectionBiasPlace> places{{3, 1, few}, {3 + few, 2 + few, many}};
  const std::size_t count = 3 + few + many + 2;
  std::vector<double> loads;
  Random random(Seed{1});
  for (std::size_t i = 0; i < count; ++i) loads.push_back(double(random.below(4)));
  const test::Guarded<SelectionBiasPlace> places_there(places);
  const test::Guarded<double> loads_there(loads);
  for (const double squares : {2.0, double(NAN)}) {
    auto values = test::uniform<S>(Index(count), 2);
    std::vector<std::int16_t> remainder(halved ? count : 0, 77);
    const test::Guarded<S> values_there(values);
    const test::Guarded<std::int16_t> remainder_there(remainder);
    const test::Guarded<double> squares_there(std::vector<double>{squares});
    SelectionBiasUpdate<S> update{.places = places_there.data(),
                                  .count = 2,
                                  .parameters = values_there.data(),
                                  .remainder = halved ? remainder_there.data() : nullptr,
                                  .report = loads_there.data(),
                                  .rate = 0x1p-9,  // exact in any type
                                  .squares = squares_there.data(),
                                  .begin = 4,
                                  .end = Index(count) - 4};
    update_selection_biases(device, update);
    device.synchronize();
    update.places = places.data();
    update.parameters = values.data();
    update.remainder = halved ? remainder.data() : nullptr;
    update.report = loads.data();
    update.squares = &squares;
    reference::Device plain;
    update_selection_biases(plain, update);
    bool intact = true;
    const auto moved = values_there.read(intact);
    report.expect("selection biases", std::memcmp(moved.data(), values.data(), count * sizeof(S)) == 0);
    report.expect("selection biases' remainders", remainder_there.read(intact) == remainder);
    report.expect("selection biases: guards", intact);
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("router float");
    check_orders<float, 1, 1>(report);
    check_orders<float, 8, 1>(report);
    check_orders<float, 8, 2>(report);
    check_orders<float, 33, 33>(report);
    check_orders<float, 128, 4>(report);
    check_orders<float, 2500, 2>(report);
    report.group("router double");
    check_orders<double, 5, 2>(report);
    check_orders<double, 64, 8>(report);
    report.group("router with a NaN");
    cuda::Device device;
    check_nan(report, device);
    report.group("selection biases");
    check_selection_biases<float>(report, device);
    check_selection_biases<double>(report, device);
    check_selection_biases<bfloat16>(report, device);
  });
}
