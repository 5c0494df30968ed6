#include <cstdint>

#include "gpu/operations.cuh"
#include "moe_mamba/cuda/optimizer.cuh"

using namespace moe_mamba;

namespace {

__global__ void split_kernel(Index count, const float* weights, bfloat16* parameters, std::int16_t* remainder) {
  for (Index i = threadIdx.x; i < count; i += blockDim.x) {
    const SplitFloat halves = split_float(weights[i]);
    parameters[i] = halves.upper;
    remainder[i] = halves.remainder;
  }
}

__global__ void join_kernel(Index count, const bfloat16* parameters, const std::int16_t* remainder, float* weights) {
  for (Index i = threadIdx.x; i < count; i += blockDim.x) weights[i] = join_float({parameters[i], remainder[i]});
}

/// With bfloat16 parameters, weights are split before the update and joined after it: the reference in double has no
/// remainders, and all bits of one may change with the last bit of a weight.
template <class C, class S>
void check_optimizer(test::Report& report) {
  constexpr bool halved = AdamWUpdate<C, S>::keeps_remainder;
  for (const Index count : {0, 1, 31, 32, 33, 127, 128, 129, 1031, 100003}) {
    auto values = test::uniform<C>(count, 1);
    report.check("sum of squares " + std::to_string(count), (4 + 2 * std::sqrt(double(count))) * test::rounding<double>,
                 std::make_tuple(values, test::poison<double>(1)),
                 [&](auto& device, const auto* from, double* sum) { sum_of_squares(device, from, count, sum); });

    const auto weights = test::uniform<C>(count, 2);
    const test::Guarded<bfloat16> upper(std::vector<bfloat16>(halved ? weights.size() : 0));
    const test::Guarded<std::int16_t> lower(std::vector<std::int16_t>(halved ? weights.size() : 0));
    // A block takes chunks of 2048 elements, so some boundaries are at the ends of chunks and some chunks have none.
    const std::vector<std::vector<Index>> decays = {{},
                                                    {0},
                                                    {0, count},
                                                    {count / 2},
                                                    {count},
                                                    {1, 2, 3, 30, 33, 33, 100},
                                                    {5, 2047, 2048, 2049, 4095, 4096, 70000}};
    const std::vector<double> norms = {16.0, 1e-4, double(NAN), double(INFINITY)};
    for (std::size_t n = 0; n < decays.size() + norms.size() - 1; ++n) {
      const auto& boundaries = decays[n < decays.size() ? n : 1];
      const double squares = norms[n < decays.size() ? 0 : n - decays.size() + 1];
      const auto boundary_count = static_cast<Index>(boundaries.size());
      report.check(
          "adamw " + std::to_string(count) + ", boundaries " + std::to_string(boundary_count), 12 * test::rounding<C>,
          std::make_tuple(weights, values, test::uniform<C>(count, 3), test::uniform<C>(count, 4, 0, 1),
                          std::vector<double>{squares}, boundaries),
          [&](auto& device, auto* w, auto* gradient, auto* m, auto* v, const double* sum, const Index* boundary) {
            using Compute = std::remove_pointer_t<decltype(m)>;
            const auto update = [&]<class Storage>(Storage* parameters, std::int16_t* remainder) {
              adamw(device, AdamWUpdate<Compute, Storage>{.count = count,
                                                          .parameters = parameters,
                                                          .remainder = remainder,
                                                          .gradient = gradient,
                                                          .first_moment = m,
                                                          .second_moment = v,
                                                          .scale = 0.5,
                                                          .rate = 0.01,
                                                          .beta1 = 0.9,
                                                          .beta2 = 0.99,
                                                          .epsilon = 1e-8,
                                                          .decay = 0.1,
                                                          .decay_boundaries = boundary,
                                                          .boundary_count = boundary_count,
                                                          .correction1 = 0.3,
                                                          .correction2 = 0.03,
                                                          .squares = sum,
                                                          .clip_norm = 1.0});
            };
            if constexpr (halved && std::is_same_v<Compute, C>) {
              split_kernel<<<1, 1024, 0, device.stream()>>>(count, w, upper.data(), lower.data());
              update(upper.data(), lower.data());
              join_kernel<<<1, 1024, 0, device.stream()>>>(count, upper.data(), lower.data(), w);
            } else {
              update(w, nullptr);
            }
          });
    }
    bool intact = true;
    upper.read(intact);
    lower.read(intact);
    report.expect("adamw " + std::to_string(count) + ": guards of the halves", intact);
  }
  auto values = test::uniform<C>(1000, 1);
  values[700] = C(NAN);
  report.check("NaN in a sum of squares", 1e-14, std::make_tuple(values, test::uniform<double>(1, 1)),
               [&](auto& device, const auto* from, double* sum) { sum_of_squares(device, from, 1000, sum); });
}

/// An update has the same bits for any alignment of its arrays, though aligned ones are read in larger vectors.
template <class C, class S>
void check_place(test::Report& report) {
  constexpr Index count = 3001;
  const auto at = [](const auto& values, Index offset) {
    auto moved = values;
    moved.insert(moved.begin(), static_cast<std::size_t>(offset), {});
    return test::Guarded(moved);
  };
  const auto back = [](const auto& memory, Index offset) {
    bool intact = true;
    auto values = memory.read(intact);
    values.erase(values.begin(), values.begin() + offset);
    return values;
  };
  cuda::Device device;
  const test::Guarded<double> squares(std::vector<double>{16});
  std::vector<S> expected;
  for (const Index offset : {0, 1, 2, 3, 4, 5}) {
    const auto weights = at(test::uniform<S>(count, 1), offset);
    const auto remainder = at(std::vector<std::int16_t>(AdamWUpdate<C, S>::keeps_remainder ? count : 0, 77), offset);
    const auto gradient = at(test::uniform<C>(count, 2), offset), m = at(test::uniform<C>(count, 3), offset),
               v = at(test::uniform<C>(count, 4, 0, 1), offset);
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // a copy may still be in progress
    adamw(device, AdamWUpdate<C, S>{.count = count,
                                    .parameters = weights.data() + offset,
                                    .remainder = remainder.data() + offset,
                                    .gradient = gradient.data() + offset,
                                    .first_moment = m.data() + offset,
                                    .second_moment = v.data() + offset,
                                    .scale = 0.5,
                                    .rate = 0.01,
                                    .beta1 = 0.9,
                                    .beta2 = 0.99,
                                    .epsilon = 1e-8,
                                    .decay = 0.1,
                                    .decay_boundaries = nullptr,
                                    .boundary_count = 0,
                                    .correction1 = 0.3,
                                    .correction2 = 0.03,
                                    .squares = squares.data(),
                                    .clip_norm = 1.0});
    device.synchronize();
    const std::vector<S> updated = back(weights, offset);
    if (offset == 0) expected = updated;
    report.expect("adamw of arrays that begin at element " + std::to_string(offset), updated == expected);
  }
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
    report.group("places of an update");
    check_place<float, float>(report);
    check_place<float, bfloat16>(report);
    check_place<double, double>(report);
  });
}
