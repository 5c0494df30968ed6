#include "gpu/operations.cuh"
#include "moe_mamba/cuda/activation.cuh"

using namespace moe_mamba;

namespace {

/// A user-defined activation.
struct Cube {
  static constexpr bool gated = false;
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T value(T x) {
    return x * x * x;
  }
  template <class T>
  MOE_MAMBA_HOST_DEVICE static T derivative(T x) {
    return T(3) * x * x;
  }
};

template <class Activation, class C>
void check_activation(test::Report& report) {
  // Products of functions with errors of a few units in the last place; a derivative may be a difference of these.
  const double bound = 16 * test::rounding<C>;
  for (const Shape size : {Shape{0, 3}, {1, 1}, {1, 33}, {31, 127}, {32, 128}, {129, 257}, {1031, 65}}) {
    const Index rows = size.batch, columns = size.length, wide = columns * (Activation::gated ? 2 : 1);
    const std::string name = std::to_string(rows) + " x " + std::to_string(columns);
    auto h = test::uniform<C>(rows * wide, 1, -6, 6);
    const auto da = test::uniform<C>(rows * columns, 2);
    if (h.size() > 7) h[7] = C(compute_t<C>(NAN));
    const auto a = test::poison<C>(rows * columns), dh = test::poison<C>(rows * wide);
    report.check(name, bound, std::make_tuple(h, da, a, dh), [&](auto& device, auto* x, auto* dy, auto* y, auto* dx) {
      activate(device, Activation{}, matrix(x, rows, wide), matrix(y, rows, columns));
      activate_backward(device, Activation{}, matrix(x, rows, wide), matrix(dy, rows, columns), matrix(dx, rows, wide));
    });
    // Groups with fewer rows than the matrices: the rest is unchanged.
    const std::vector<Index> offsets = {0, rows / 3, rows / 3, rows / 2};
    report.check(name + " grouped", bound, std::make_tuple(offsets, h, da, a, dh),
                 [&](auto& device, const Index* ends, auto* x, auto* dy, auto* y, auto* dx) {
                   grouped_activate(device, {ends, 3}, Activation{}, matrix(x, rows, wide), matrix(y, rows, columns));
                   grouped_activate_backward(device, {ends, 3}, Activation{}, matrix(x, rows, wide),
                                             matrix(dy, rows, columns), matrix(dx, rows, wide));
                 });
  }
}

template <class Activation>
void check_both(test::Report& report, const char* name) {
  report.group(std::string(name) + " float");
  check_activation<Activation, float>(report);
  report.group(std::string(name) + " bfloat16");
  check_activation<Activation, bfloat16>(report);
  report.group(std::string(name) + " double");
  check_activation<Activation, double>(report);
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    check_both<Relu>(report, "relu");
    check_both<SquaredRelu>(report, "squared relu");
    check_both<Gelu>(report, "gelu");
    check_both<Silu>(report, "silu");
    check_both<SwiGlu>(report, "swiglu");
    check_both<GeGlu>(report, "geglu");
    check_both<Cube>(report, "a user's");
  });
}
