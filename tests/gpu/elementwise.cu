#include "gpu/operations.cuh"
#include "moe_mamba/cuda/elementwise.cuh"

using namespace moe_mamba;

namespace {

/// Operations that copy or add numbers of type X to numbers of type C.
template <class X, class C>
void check_moves(test::Report& report) {
  for (const Shape size :
       {Shape{0, 5}, {5, 0}, {1, 1}, {1, 31}, {3, 33}, {31, 7}, {32, 128}, {129, 127}, {1031, 257}, {1, 100003}}) {
    for (const Index padding : {0, 5}) {
      const Index rows = size.batch, columns = size.length, stride = columns + padding;
      const std::string name = std::to_string(rows) + " x " + std::to_string(columns) + " + " + std::to_string(padding);
      const auto view = [&](auto* data) {
        return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, columns, stride};
      };
      report.check("fill, add, copy " + name, 1.5 * test::rounding<C>,
                   std::make_tuple(test::uniform<X>(rows * stride, 1), test::poison<C>(rows * stride),
                                   test::poison<C>(rows * stride)),
                   [&](auto& device, auto* from, auto* y, auto* copied) {
                     fill(device, std::remove_reference_t<decltype(*y)>(0.25), view(y));
                     add(device, view(from), view(y));
                     copy(device, view(from), view(copied));
                   });
      report.check("scale " + name, 1.5 * test::rounding<C>, std::make_tuple(test::uniform<C>(rows * stride, 2)),
                   [&](auto& device, auto* y) { scale(device, -0.75f, view(y)); });
    }
  }
}

template <class C>
void check_elementwise(test::Report& report) {
  check_moves<C, C>(report);
  for (const Shape size :
       {Shape{0, 5}, {5, 0}, {1, 1}, {1, 31}, {3, 33}, {31, 7}, {32, 128}, {129, 127}, {1031, 257}, {1, 100003}}) {
    for (const Index padding : {0, 5}) {
      const Index rows = size.batch, columns = size.length, stride = columns + padding;
      const std::string name = std::to_string(rows) + " x " + std::to_string(columns) + " + " + std::to_string(padding);
      const auto x = test::uniform<C>(rows * stride, 1), target = test::uniform<C>(rows * stride, 2);
      const auto view = [&](auto* data) {
        return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, columns, stride};
      };
      for (const bool gradient : {false, true}) {
        // The reference's plain sum in double makes a random rounding error per term.
        const double sum_rounding = 2 * std::sqrt(double(rows * columns)) * test::rounding<double>;
        report.check("squared error " + name, 4 * test::rounding<C> + sum_rounding,
                     std::make_tuple(x, target, test::poison<C>(rows * stride), test::poison<double>(1)),
                     [&](auto& device, auto* from, auto* goal, auto* dx, double* sum) {
                       squared_error(device, view(from), view(goal), 0.125,
                                     gradient ? view(dx) : MatrixView<std::remove_pointer_t<decltype(dx)>>{}, sum);
                     });
      }
    }
  }
  auto x = test::uniform<C>(63, 3);
  x[40] = C(NAN);
  report.check("NaN", 4 * test::rounding<C>,
               std::make_tuple(x, test::uniform<C>(63, 4), test::poison<C>(63), test::poison<double>(1)),
               [&](auto& device, auto* from, auto* goal, auto* dx, double* sum) {
                 squared_error(device, matrix(from, 3, 21), matrix(goal, 3, 21), 0.125, matrix(dx, 3, 21), sum);
               });
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("elementwise float");
    check_elementwise<float>(report);
    report.group("elementwise bfloat16");
    check_moves<bfloat16, bfloat16>(report);
    check_moves<bfloat16, float>(report);
    check_moves<float, bfloat16>(report);
    report.group("elementwise double");
    check_elementwise<double>(report);
  });
}
