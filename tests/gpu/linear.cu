#include "gpu/operations.cuh"
#include "moe_mamba/cuda/linear.cuh"

using namespace moe_mamba;

namespace {

/// Twice the error that a plain loop makes in a sum of `count` products, against the largest of many such sums.
template <class C>
double sum_bound(Index count) {
  return (8 + std::sqrt(double(count))) * test::rounding<C>;
}

/// Activations that bfloat16 holds where the weights are of it: what is left to tell of is the error of sums.
template <class C, class S>
std::vector<C> draw(Index count, std::uint64_t seed) {
  return test::converted<C>(test::uniform<S>(count, seed));
}

template <class C, class S>
void check_linear(test::Report& report) {
  struct Size {
    Index rows, in, out;
  };
  for (const Size size : {Size{0, 5, 7},
                          {1, 1, 1},
                          {1, 33, 129},
                          {1, 1024, 515},
                          {2, 1031, 127},
                          {4, 64, 40},
                          {5, 64, 40},
                          {31, 33, 32},
                          {32, 128, 127},
                          {33, 1031, 129},
                          {129, 127, 31},
                          {257, 256, 128},
                          {1031, 64, 33}}) {
    const Index rows = size.rows, in = size.in, out = size.out, in_stride = in + 3, out_stride = out + 1;
    const std::string name = std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out);
    const auto wide = [&](auto* data) {
      return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, in, in_stride};
    };
    const auto high = [&](auto* data) {
      return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, out, out_stride};
    };
    const auto weight = test::uniform<S>(out * in, 2);
    report.check(
        "linear " + name, sum_bound<C>(in),
        std::make_tuple(draw<C, S>(rows * in_stride, 1), weight, test::poison<C>(rows * out_stride)),
        [&](auto& device, auto* x, auto* w, auto* y) { linear(device, wide(x), test::fixed(w, out, in), high(y)); });
    for (const Into into : {Into::assign, Into::add}) {
      const auto before = into == Into::add ? test::uniform<C>(rows * in_stride, 4) : test::poison<C>(rows * in_stride);
      report.check("backward input " + name, sum_bound<C>(out),
                   std::make_tuple(draw<C, S>(rows * out_stride, 3), weight, before),
                   [&](auto& device, auto* dy, auto* w, auto* dx) {
                     linear_backward_input(device, high(dy), test::fixed(w, out, in), wide(dx), into);
                   });
    }
    report.check("backward weight " + name, sum_bound<C>(rows),
                 std::make_tuple(test::uniform<C>(rows * out_stride, 5), test::uniform<C>(rows * in_stride, 6),
                                 test::uniform<C>(out * in, 7)),
                 [&](auto& device, auto* dy, auto* x, auto* dweight) {
                   linear_backward_weight(device, high(dy), wide(x), matrix(dweight, out, in));
                 });
    report.check("bias " + name, sum_bound<C>(1),
                 std::make_tuple(test::uniform<S>(out, 8), test::uniform<C>(rows * out_stride, 9),
                                 test::uniform<C>(rows * out_stride, 10), test::uniform<C>(out, 11)),
                 [&](auto& device, const auto* bias, auto* y, auto* dy, auto* dbias) {
                   add_bias(device, bias, high(y));
                   bias_backward(device, high(dy), dbias);
                 });
  }
}

/// Offsets of `groups` groups over `rows` rows but the last few: even, all in one, or with empty ones.
std::vector<Index> draw_offsets(Index rows, Index groups, int kind) {
  const Index used = rows - (rows > 3 ? 2 : 0);
  std::vector<Index> offsets = {0};
  for (Index g = 1; g < groups; ++g) {
    const Index even = used * g / groups;
    offsets.push_back(kind == 0   ? even
                      : kind == 1 ? (g > groups / 2 ? used : 0)
                                  : std::max(offsets.back(), (even / 40) * 40));
  }
  offsets.push_back(used);
  return offsets;
}

template <class C, class S>
void check_grouped(test::Report& report) {
  struct Size {
    Index rows, groups, in, out;
  };
  for (const Size size : {Size{0, 3, 8, 8},
                          {1, 4, 64, 48},
                          {7, 3, 33, 129},
                          {16, 40, 136, 64},
                          {31, 4, 40, 72},
                          {33, 1, 128, 127},
                          {127, 5, 256, 128},
                          {128, 3, 31, 33},
                          {129, 2, 72, 264},
                          {300, 70, 64, 520},
                          {1031, 8, 136, 152},
                          {1031, 4, 129, 65}}) {
    for (const int kind : {0, 1, 2}) {
      const Index rows = size.rows, groups = size.groups, in = size.in, out = size.out;
      const std::string name = std::to_string(rows) + " in " + std::to_string(groups) + ", " + std::to_string(in) +
                               " x " + std::to_string(out) + ", kind " + std::to_string(kind);
      const auto offsets = draw_offsets(rows, groups, kind);
      const auto weight = test::uniform<S>(groups * out * in, 2);
      report.check("grouped " + name, sum_bound<C>(in),
                   std::make_tuple(offsets, draw<C, S>(rows * in, 1), weight, test::poison<C>(rows * out)),
                   [&](auto& device, const Index* ends, auto* x, const auto* w, auto* y) {
                     using Storage = std::remove_pointer_t<decltype(w)>;
                     grouped_linear(device, {ends, groups}, matrix(x, rows, in), MatrixStack<Storage>{w, out, in},
                                    matrix(y, rows, out));
                   });
      for (const Into into : {Into::assign, Into::add}) {
        const auto before = into == Into::add ? test::uniform<C>(rows * in, 4) : test::poison<C>(rows * in);
        report.check("grouped backward input " + name, sum_bound<C>(out),
                     std::make_tuple(offsets, draw<C, S>(rows * out, 3), weight, before),
                     [&](auto& device, const Index* ends, auto* dy, const auto* w, auto* dx) {
                       using Storage = std::remove_pointer_t<decltype(w)>;
                       grouped_linear_backward_input(device, {ends, groups}, matrix(dy, rows, out),
                                                     MatrixStack<Storage>{w, out, in}, matrix(dx, rows, in), into);
                     });
      }
      report.check("grouped backward weight " + name, sum_bound<C>(rows),
                   std::make_tuple(offsets, test::uniform<C>(rows * out, 5), test::uniform<C>(rows * in, 6),
                                   test::uniform<C>(groups * out * in, 7)),
                   [&](auto& device, const Index* ends, auto* dy, auto* x, auto* dweight) {
                     using Compute = std::remove_pointer_t<decltype(dweight)>;
                     grouped_linear_backward_weight(device, {ends, groups}, matrix(dy, rows, out), matrix(x, rows, in),
                                                    MatrixStack<Compute>{dweight, out, in});
                   });
    }
  }
}

/// Activations of full precision with bfloat16 weights: off by their rounding, and no more.
void check_rounding(test::Report& report) {
  const Index rows = 300, in = 256, out = 264;
  const std::vector<Index> offsets = {0, 100, 300};
  const double bound = 1.0 / 512;  // half a unit in the ninth bit of each product
  report.check("dense", bound,
               std::make_tuple(test::uniform<float>(rows * in, 1), test::uniform<bfloat16>(2 * in * out, 2),
                               test::poison<float>(rows * out)),
               [&](auto& device, auto* x, auto* w, auto* y) {
                 linear(device, matrix(x, rows, in), test::fixed(w, out, in), matrix(y, rows, out));
               });
  report.check(
      "grouped", bound,
      std::make_tuple(offsets, test::uniform<float>(rows * in, 1), test::uniform<bfloat16>(2 * in * out, 2),
                      test::poison<float>(rows * out)),
      [&](auto& device, const Index* ends, auto* x, const auto* w, auto* y) {
        using Storage = std::remove_pointer_t<decltype(w)>;
        grouped_linear(device, {ends, 2}, matrix(x, rows, in), MatrixStack<Storage>{w, out, in}, matrix(y, rows, out));
      });
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("products float");
    check_linear<float, float>(report);
    report.group("products float, bfloat16 parameters");
    check_linear<float, bfloat16>(report);
    report.group("products double");
    check_linear<double, double>(report);
    report.group("grouped float");
    check_grouped<float, float>(report);
    report.group("grouped float, bfloat16 parameters");
    check_grouped<float, bfloat16>(report);
    report.group("grouped double");
    check_grouped<double, double>(report);
    report.group("rounding to bfloat16");
    check_rounding(report);
  });
}
