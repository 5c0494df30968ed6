#include "moe_mamba/cpu/norm.hpp"

#include <vector>

#include "moe_mamba/reference/norm.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// Inputs and outputs of both norms. Rows are padded by `padding` poisoned elements, which must not be read.
template <class S, class C = compute_t<S>>
struct Norm {
  static constexpr Index padding = 3;

  Index rows, columns, stride = columns + padding;
  std::vector<C> x, dy, dx, dgain, dbias;
  std::vector<S> gain, bias;
  std::vector<C> y, mean, inverse;

  Norm(Index rows_, Index columns_, std::uint64_t seed) : rows(rows_), columns(columns_) {
    x = padded(seed, 0.5);
    dy = padded(seed + 1, 0);
    dx = padded(seed + 2, 0);
    dgain = test::uniform<C>(columns, seed + 3);
    dbias = test::uniform<C>(columns, seed + 4);
    gain = test::uniform<S>(columns, seed + 5, 0.5, 1.5);
    bias = test::uniform<S>(columns, seed + 6);
    y = test::poison<C>(rows * stride);
    mean = test::poison<C>(rows);
    inverse = test::poison<C>(rows);
  }

  Norm<double> in_double() const {
    Norm<double> result(rows, columns, 0);
    result.x = test::converted<double>(x);
    result.dy = test::converted<double>(dy);
    result.dx = test::converted<double>(dx);
    result.dgain = test::converted<double>(dgain);
    result.dbias = test::converted<double>(dbias);
    result.gain = test::converted<double>(gain);
    result.bias = test::converted<double>(bias);
    return result;
  }

  MatrixView<C> view(std::vector<C>& values) const { return {values.data(), rows, columns, stride}; }

  template <class Device>
  void run_rms(Device& device) {
    rms_norm(device, view(x), gain.data(), 1e-5, view(y), inverse.data());
    rms_norm_backward(device, view(x), gain.data(), inverse.data(), view(dy), view(dx), dgain.data());
  }
  template <class Device>
  void run_rms_without_gain(Device& device) {
    const S* const none = nullptr;
    rms_norm(device, view(x), none, 1e-5, view(y), inverse.data());
    rms_norm_backward(device, view(x), none, inverse.data(), view(dy), view(dx), static_cast<C*>(nullptr));
  }
  template <class Device>
  void run_layer(Device& device) {
    layer_norm(device, view(x), gain.data(), bias.data(), 1e-5, view(y), mean.data(), inverse.data());
    layer_norm_backward(device, view(x), gain.data(), mean.data(), inverse.data(), view(dy), view(dx), dgain.data(),
                        dbias.data());
  }

  /// The elements of a padded matrix.
  std::vector<C> inside(const std::vector<C>& values) const {
    std::vector<C> result;
    for (Index t = 0; t < rows; ++t) {
      for (Index i = 0; i < columns; ++i) result.push_back(values[static_cast<std::size_t>(t * stride + i)]);
    }
    return result;
  }

 private:
  std::vector<C> padded(std::uint64_t seed, double shift) const {
    auto values = test::uniform<C>(rows * stride, seed, shift - 1, shift + 1);
    for (Index t = 0; t < rows; ++t) {
      for (Index i = columns; i < stride; ++i) values[static_cast<std::size_t>(t * stride + i)] = C(NAN);
    }
    return values;
  }
};

template <class Result, class Expected>
void check_close(const Result& actual, const Expected& expected, double tolerance) {
  CAPTURE(actual.rows, actual.columns);
  CHECK(test::relative_error(actual.inside(actual.y), expected.inside(expected.y)) <= tolerance);
  CHECK(test::relative_error(actual.inverse, expected.inverse) <= tolerance);
  CHECK(test::relative_error(actual.inside(actual.dx), expected.inside(expected.dx)) <= tolerance);
  CHECK(test::relative_error(actual.dgain, expected.dgain) <= tolerance);
  CHECK(test::relative_error(actual.dbias, expected.dbias) <= tolerance);
}

const std::vector<Shape> sizes = {{0, 5},  {1, 1},  {1, 7},   {1, 8},    {2, 9},    {3, 15},   {5, 16},
                                  {7, 17}, {3, 31}, {65, 33}, {33, 127}, {257, 64}, {1031, 37}};

}  // namespace

TEMPLATE_TEST_CASE("norms and their gradients agree with the reference", "[cpu][norm]", float, double, bfloat16) {
  // A row's sums run over at most 127 elements and a column's over 1031, in a few interleaved partial sums: about ten
  // roundings of the compute type (6e-8 and 1.1e-16), times the cancellation in dx.
  const double tolerance = sizeof(compute_t<TestType>) == 8 ? 1e-14 : 3e-6;
  cpu::Device device;
  reference::Device plain;
  for (const Shape size : sizes) {
    Norm<TestType> rms(size.batch, size.length, 11);
    auto expected = rms.in_double();
    rms.run_rms(device);
    expected.run_rms(plain);
    check_close(rms, expected, tolerance);

    Norm<TestType> plain_rms(size.batch, size.length, 13);
    expected = plain_rms.in_double();
    plain_rms.run_rms_without_gain(device);
    expected.run_rms_without_gain(plain);
    check_close(plain_rms, expected, tolerance);
    auto ones = plain_rms.in_double();  // a gain of ones equals no gain
    std::fill(ones.gain.begin(), ones.gain.end(), 1.0);
    ones.y = expected.y;
    ones.dx = Norm<TestType>(size.batch, size.length, 13).in_double().dx;
    ones.run_rms(plain);
    CHECK(test::relative_error(expected.inside(expected.dx), ones.inside(ones.dx)) <= 1e-14);

    // A row of one element has no variance: its normalised value is 0, its gradient all cancellation.
    if (size.length == 1) continue;
    Norm<TestType> layer(size.batch, size.length, 12);
    expected = layer.in_double();
    layer.run_layer(device);
    expected.run_layer(plain);
    check_close(layer, expected, tolerance);
    CHECK(test::relative_error(layer.mean, expected.mean) <= tolerance);
  }
}

TEMPLATE_TEST_CASE("norms give the same bits with 1, 2 and 3 threads", "[cpu][norm]", float, double, bfloat16) {
  for (const Shape size : {Shape{1031, 37}, Shape{300, 768}, Shape{3, 20000}}) {
    Norm<TestType> rms1(size.batch, size.length, 21), layer1 = rms1;
    cpu::Device one;
    rms1.run_rms(one);
    layer1.run_layer(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      Norm<TestType> rms(size.batch, size.length, 21), layer = rms;
      rms.run_rms(many);
      layer.run_layer(many);
      CHECK(rms.inside(rms.y) == rms1.inside(rms1.y));
      CHECK(rms.inside(rms.dx) == rms1.inside(rms1.dx));
      CHECK(rms.dgain == rms1.dgain);
      CHECK(layer.inside(layer.y) == layer1.inside(layer1.y));
      CHECK(layer.inside(layer.dx) == layer1.inside(layer1.dx));
      CHECK(layer.dgain == layer1.dgain);
      CHECK(layer.dbias == layer1.dbias);
    }
  }
}

TEST_CASE("gradients of the reference norms agree with finite differences", "[reference][norm]") {
  reference::Device device;
  for (const bool layer : {false, true}) {
    Norm<double> norm(3, 5, 31);
    // The loss is the product of y with fixed weights, which are therefore dy.
    const auto loss = [&] {
      if (layer) {
        layer_norm(device, norm.view(norm.x), norm.gain.data(), norm.bias.data(), 1e-5, norm.view(norm.y),
                   norm.mean.data(), norm.inverse.data());
      } else {
        rms_norm(device, norm.view(norm.x), norm.gain.data(), 1e-5, norm.view(norm.y), norm.inverse.data());
      }
      const auto y = norm.inside(norm.y), dy = norm.inside(norm.dy);
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
      return sum;
    };
    std::vector<double> dx, dgain, dbias;
    for (Index t = 0; t < norm.rows; ++t) {
      for (Index i = 0; i < norm.columns; ++i) {
        dx.push_back(test::finite_difference(norm.view(norm.x)(t, i), 1e-3, loss));
      }
    }
    for (auto& element : norm.gain) dgain.push_back(test::finite_difference(element, 1e-3, loss));
    for (auto& element : norm.bias) dbias.push_back(test::finite_difference(element, 1e-3, loss));

    for (auto* gradient : {&norm.dx, &norm.dgain, &norm.dbias}) gradient->assign(gradient->size(), 0);
    if (layer) {
      norm.run_layer(device);
      CHECK(test::relative_error(norm.dbias, dbias) < 1e-7);
    } else {
      norm.run_rms(device);
    }
    CHECK(test::relative_error(norm.inside(norm.dx), dx) < 1e-7);
    CHECK(test::relative_error(norm.dgain, dgain) < 1e-7);
  }
}

TEST_CASE("a NaN affects its own row of a norm and no other", "[cpu][norm]") {
  cpu::Device device;
  for (const Index place : {0, 13, 36}) {
    Norm<float> norm(3, 37, 41), layer = norm;
    norm.view(norm.x)(1, place) = layer.view(layer.x)(1, place) = NAN;
    norm.run_rms(device);
    layer.run_layer(device);
    for (Index i = 0; i < 37; ++i) {
      CHECK(std::isnan(norm.view(norm.y)(1, i)));
      CHECK(std::isnan(norm.view(norm.dx)(1, i)));
      CHECK(std::isnan(layer.view(layer.y)(1, i)));
      CHECK(std::isnan(layer.view(layer.dx)(1, i)));
      for (const Index t : {0, 2}) {
        CHECK(std::isfinite(norm.view(norm.y)(t, i)));
        CHECK(std::isfinite(layer.view(layer.y)(t, i)));
      }
    }
  }
}

TEST_CASE("a norm may work in place", "[cpu][norm]") {
  cpu::Device device(Threads{2});
  Norm<float> norm(100, 1000, 51), in_place = norm;
  norm.run_rms(device);
  rms_norm(device, in_place.view(in_place.x), in_place.gain.data(), 1e-5, in_place.view(in_place.x),
           in_place.inverse.data());
  CHECK(in_place.inside(in_place.x) == norm.inside(norm.y));
}
