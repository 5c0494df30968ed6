#include "moe_mamba/cpu/elementwise.hpp"

#include <vector>

#include "moe_mamba/reference/elementwise.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

template <class C>
struct Matrices {
  Index rows, columns, stride;
  std::vector<C> x, target, y, dx;
  double error = NAN;

  Matrices(Shape size, Index padding) : rows(size.batch), columns(size.length), stride(columns + padding) {
    x = test::uniform<C>(rows * stride, 1);
    target = test::uniform<C>(rows * stride, 2);
    y = test::poison<C>(rows * stride);
    dx = test::poison<C>(rows * stride);
  }

  Matrices<double> in_double() const {
    Matrices<double> result({rows, columns}, stride - columns);
    result.x = test::converted<double>(x);
    result.target = test::converted<double>(target);
    return result;
  }

  MatrixView<C> view(std::vector<C>& values) const { return {values.data(), rows, columns, stride}; }

  template <class Device>
  void run(Device& device) {
    fill(device, C(0.25), view(y));
    add(device, view(x), view(y));
    scale(device, C(-0.75), view(y));
    copy(device, view(x), view(dx));
    squared_error(device, view(x), view(target), 0.125, view(dx), &error);
  }

  std::vector<C> inside(const std::vector<C>& values) const {
    std::vector<C> result;
    for (Index t = 0; t < rows; ++t) {
      for (Index i = 0; i < columns; ++i) result.push_back(values[static_cast<std::size_t>(t * stride + i)]);
    }
    return result;
  }
};

const std::vector<Shape> sizes = {{0, 0},  {0, 5},    {5, 0},    {1, 1},   {1, 7},     {2, 8},    {3, 17},
                                  {5, 67}, {37, 255}, {37, 256}, {5, 257}, {1, 40000}, {401, 131}};

}  // namespace

TEMPLATE_TEST_CASE("elementwise operations agree with the reference", "[cpu][elementwise]", float, double) {
  cpu::Device device;
  reference::Device plain;
  const double tolerance = sizeof(TestType) == 8 ? 1e-15 : 1.2e-7;  // one rounding
  for (const Shape size : sizes) {
    for (const Index padding : {0, 5}) {
      CAPTURE(size.batch, size.length, padding);
      Matrices<TestType> actual(size, padding);
      auto expected = actual.in_double();
      actual.run(device);
      expected.run(plain);
      CHECK(test::relative_error(actual.inside(actual.y), expected.inside(expected.y)) <= tolerance);
      CHECK(test::relative_error(actual.inside(actual.dx), expected.inside(expected.dx)) <= tolerance);
      // Two roundings per term, and the error of a plain sum in double over as many terms.
      const double sum_tolerance = 2 * tolerance + 1.2e-16 * double(size.batch * size.length);
      CHECK(std::abs(actual.error - expected.error) <= sum_tolerance * expected.error);
      double alone = NAN;
      squared_error(device, actual.view(actual.x), actual.view(actual.target), 0.125, MatrixView<TestType>{}, &alone);
      CHECK(alone == actual.error);
      for (Index t = 0; t < size.batch; ++t) {
        for (Index i = size.length; i < actual.stride; ++i) {
          CHECK(std::isnan(actual.y[static_cast<std::size_t>(t * actual.stride + i)]));
        }
      }
      copy(device, actual.view(actual.x), actual.view(actual.y));
      CHECK(actual.inside(actual.y) == actual.inside(actual.x));
    }
  }
}

TEST_CASE("the gradient of the reference's squared error agrees with finite differences", "[reference][elementwise]") {
  reference::Device device;
  Matrices<double> run({3, 5}, 2);
  run.run(device);
  std::vector<double> expected;
  for (Index t = 0; t < 3; ++t) {
    for (Index i = 0; i < 5; ++i) {
      expected.push_back(test::finite_difference(run.view(run.x)(t, i), 1e-3, [&] {
        squared_error(device, run.view(run.x), run.view(run.target), 0.0, MatrixView<double>{}, &run.error);
        return 0.125 * run.error;
      }));
    }
  }
  CHECK(test::relative_error(run.inside(run.dx), expected) < 1e-7);
}

TEST_CASE("elementwise operations give the same bits with 1, 2 and 3 threads", "[cpu][elementwise]") {
  cpu::Device one;
  for (const Index padding : {0, 3}) {
    Matrices<float> expected({1031, 131}, padding);
    expected.run(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      Matrices<float> actual({1031, 131}, padding);
      actual.run(many);
      CHECK(actual.inside(actual.y) == expected.inside(expected.y));
      CHECK(actual.inside(actual.dx) == expected.inside(expected.dx));
      CHECK(actual.error == expected.error);
    }
  }
}

TEST_CASE("a NaN reaches the squared error", "[cpu][elementwise]") {
  cpu::Device device;
  Matrices<float> run({3, 21}, 0);
  run.x[30] = NAN;
  run.run(device);
  CHECK(std::isnan(run.error));
  CHECK(std::isnan(run.dx[30]));
  CHECK(std::isnan(run.y[30]));
}
