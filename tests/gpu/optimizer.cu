#include "gpu/operations.cuh"
#include "moe_mamba/cuda/optimizer.cuh"

using namespace moe_mamba;

namespace {

template <class C, class S>
void check_optimizer(test::Report& report) {
  constexpr bool with_master = !std::is_same_v<S, C>;
  for (const Index count : {0, 1, 31, 32, 33, 127, 128, 129, 1031, 100003}) {
    auto values = test::uniform<C>(count, 1);
    report.check("sum of squares " + std::to_string(count), (4 + 2 * std::sqrt(double(count))) * test::rounding<double>,
                 std::make_tuple(values, test::poison<double>(1)),
                 [&](auto& device, const auto* from, double* sum) { sum_of_squares(device, from, count, sum); });

    const auto parameters = test::uniform<S>(count, 2);
    // Pieces of 2048 elements are a block's, so some toggles lie at their ends and some blocks have none.
    const std::vector<std::vector<Index>> decays = {{},
                                                    {0},
                                                    {0, count},
                                                    {count / 2},
                                                    {count},
                                                    {1, 2, 3, 30, 33, 33, 100},
                                                    {5, 2047, 2048, 2049, 4095, 4096, 70000}};
    const std::vector<double> norms = {16.0, 1e-4, double(NAN), double(INFINITY)};
    for (std::size_t n = 0; n < decays.size() + norms.size() - 1; ++n) {
      const auto& toggles = decays[n < decays.size() ? n : 1];
      const double squares = norms[n < decays.size() ? 0 : n - decays.size() + 1];
      const auto toggle_count = static_cast<Index>(toggles.size());
      report.check("adamw " + std::to_string(count) + ", toggles " + std::to_string(toggle_count),
                   12 * test::rounding<C>,
                   std::make_tuple(parameters, test::converted<C>(parameters), values, test::uniform<C>(count, 3),
                                   test::uniform<C>(count, 4, 0, 1), std::vector<double>{squares}, toggles),
                   [&](auto& device, auto* w, auto* master, auto* gradient, auto* m, auto* v, const double* sum,
                       const Index* toggle) {
                     using Compute = std::remove_pointer_t<decltype(m)>;
                     using Storage = std::remove_pointer_t<decltype(w)>;
                     adamw(device, AdamWUpdate<Compute, Storage>{.count = count,
                                                                 .parameters = w,
                                                                 .master = with_master ? master : nullptr,
                                                                 .gradient = gradient,
                                                                 .first_moment = m,
                                                                 .second_moment = v,
                                                                 .scale = 0.5,
                                                                 .rate = 0.01,
                                                                 .beta1 = 0.9,
                                                                 .beta2 = 0.99,
                                                                 .epsilon = 1e-8,
                                                                 .decay = 0.1,
                                                                 .decay_toggles = toggle,
                                                                 .toggle_count = toggle_count,
                                                                 .correction1 = 0.3,
                                                                 .correction2 = 0.03,
                                                                 .squares = sum,
                                                                 .clip_norm = 1.0});
                   });
    }
  }
  auto values = test::uniform<C>(1000, 1);
  values[700] = C(NAN);
  report.check("NaN in a sum of squares", 1e-14, std::make_tuple(values, test::uniform<double>(1, 1)),
               [&](auto& device, const auto* from, double* sum) { sum_of_squares(device, from, 1000, sum); });
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("optimizer float");
    check_optimizer<float, float>(report);
    report.group("optimizer float, bfloat16 parameters");
    check_optimizer<float, bfloat16>(report);
    report.group("optimizer double");
    check_optimizer<double, double>(report);
  });
}
