#include "gpu/operations.cuh"
#include "moe_mamba/cuda/norm/layer_norm.cuh"
#include "moe_mamba/cuda/norm/rms_norm.cuh"

using namespace moe_mamba;

namespace {

/// Norms from rows of type X to rows of type Y.
template <class X, class Y, class S>
void check_norms(test::Report& report) {
  using C = compute_t<X>;
  for (const Shape size : {Shape{0, 8},
                           {1, 1},
                           {1, 31},
                           {31, 33},
                           {33, 128},
                           {129, 1031},
                           {1031, 127},
                           {5, 5003},
                           {700, 512},
                           {33, 1024},
                           {9, 1028}}) {
    const Index rows = size.batch, columns = size.length, stride = columns % 4 == 0 ? columns + 8 : columns + 3;
    const std::string name = std::to_string(rows) + " x " + std::to_string(columns);
    // A row's sums are in the compute type, in at least 32 partial sums.
    const double bound =
        (8 + std::sqrt(double(columns)) / 2) * test::rounding<C> + std::sqrt(double(rows)) * test::rounding<double>;
    auto x = test::uniform<X>(rows * stride, 1, -1, 2);
    if (rows > 3) x[static_cast<std::size_t>(2 * stride)] = X(C(NAN));
    const auto gain = test::uniform<S>(columns, 2), bias = test::uniform<S>(columns, 3);
    const auto dy = test::uniform<Y>(rows * stride, 4);
    const auto dx = test::uniform<X>(rows * stride, 5);
    const auto dgain = test::uniform<C>(columns, 6), dbias = test::uniform<C>(columns, 7);
    const auto y = test::poison<Y>(rows * stride);
    const auto inverse = test::poison<C>(rows);
    const auto view = [&](auto* data) {
      return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, columns, stride};
    };
    report.check("rms norm " + name, bound, std::make_tuple(x, gain, y, inverse),
                 [&](auto& device, auto* from, auto* g, auto* to, auto* scale) {
                   rms_norm(device, view(from), g, 1e-5, view(to), scale);
                 });
    report.check("rms norm in place " + name, bound, std::make_tuple(x, gain, inverse),
                 [&](auto& device, auto* from, auto* g, auto* scale) {
                   rms_norm(device, view(from), g, 1e-5, view(from), scale);
                 });
    if constexpr (std::is_same_v<X, C>) {  // a residual stream
      const auto rows_to_add = test::uniform<Y>(rows * stride, 10);
      const auto kept = test::poison<X>(rows * stride);
      for (const bool keeps : {false, true}) {
        const auto joined = [&](auto* add, auto* stream, auto* copy) {
          using Stream = std::remove_pointer_t<decltype(stream)>;
          using Added = std::remove_const_t<std::remove_pointer_t<decltype(add)>>;
          return Joined<Stream, Added>{view(add), view(stream), keeps ? view(copy) : MatrixView<Stream>{}};
        };
        report.check("rms norm of a sum " + name, bound, std::make_tuple(rows_to_add, x, kept, gain, y, inverse),
                     [&](auto& device, const auto* add, auto* stream, auto* copy, auto* g, auto* to, auto* scale) {
                       add_rms_norm(device, joined(add, stream, copy), g, 1e-5, view(to), scale);
                     });
        report.check(
            "layer norm of a sum " + name, columns == 1 ? 1e-3 : bound,
            std::make_tuple(rows_to_add, x, kept, gain, bias, y, inverse, inverse),
            [&](auto& device, const auto* add, auto* stream, auto* copy, auto* g, auto* b, auto* to, auto* mean,
                auto* scale) { add_layer_norm(device, joined(add, stream, copy), g, b, 1e-5, view(to), mean, scale); });
      }
    }
    report.check("rms norm backward " + name, bound,
                 std::make_tuple(x, gain, test::uniform<C>(rows, 8, 0.5, 1), dy, dx, dgain),
                 [&](auto& device, auto* from, auto* g, const auto* scale, auto* dto, auto* dfrom, auto* dg) {
                   rms_norm_backward(device, view(from), g, scale, view(dto), view(dfrom), dg);
                 });
    report.check(
        "rms norm backward, a copy kept " + name, bound,
        std::make_tuple(x, gain, test::uniform<C>(rows, 8, 0.5, 1), dy, dx, dgain, y),
        [&](auto& device, auto* from, auto* g, const auto* scale, auto* dto, auto* dfrom, auto* dg, auto* copied) {
          rms_norm_backward(device, view(from), g, scale, view(dto), view(dfrom), dg, view(copied));
        });
    report.check("layer norm " + name, columns == 1 ? 1e-3 : bound, std::make_tuple(x, gain, bias, y, inverse, inverse),
                 [&](auto& device, auto* from, auto* g, auto* b, auto* to, auto* mean, auto* scale) {
                   layer_norm(device, view(from), g, b, 1e-5, view(to), mean, scale);
                 });
    report.check(
        "layer norm backward " + name, bound,
        std::make_tuple(x, gain, test::uniform<C>(rows, 9), test::uniform<C>(rows, 8, 0.5, 1), dy, dx, dgain, dbias),
        [&](auto& device, auto* from, auto* g, const auto* mean, const auto* scale, auto* dto, auto* dfrom, auto* dg,
            auto* db) { layer_norm_backward(device, view(from), g, mean, scale, view(dto), view(dfrom), dg, db); });
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("norms float");
    check_norms<float, float, float>(report);
    report.group("norms float to bfloat16");
    check_norms<float, bfloat16, bfloat16>(report);
    report.group("norms bfloat16");
    check_norms<bfloat16, bfloat16, bfloat16>(report);
    report.group("norms double");
    check_norms<double, double, double>(report);
  });
}
