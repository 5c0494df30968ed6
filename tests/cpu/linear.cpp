#include "moe_mamba/cpu/linear.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "moe_mamba/reference/linear.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// A matrix with guard elements after each row, before the first and after the last.
template <class T>
struct Guarded {
  static constexpr Index margin = 19;
  static constexpr float guard = 12344;

  Index rows, columns, stride;
  std::vector<T> memory;

  Guarded(Index r, Index c, Index padding)
      : rows(r), columns(c), stride(c + padding), memory(static_cast<std::size_t>(r * stride + 2 * margin), T(guard)) {}

  MatrixView<T> view() { return {memory.data() + margin, rows, columns, stride}; }

  void assign(const std::vector<double>& values) {
    for (Index i = 0; i < rows * columns; ++i) {
      view()(i / columns, i % columns) = T(values[static_cast<std::size_t>(i)]);
    }
  }
  /// The elements, in double; NaN throughout if a guard has changed.
  std::vector<double> values() {
    std::vector<double> inside;
    std::vector<T> outside = memory;
    for (Index i = 0; i < rows * columns; ++i) {
      inside.push_back(double(view()(i / columns, i % columns)));
      outside[static_cast<std::size_t>(margin + i / columns * stride + i % columns)] = T(guard);
    }
    if (outside != std::vector<T>(memory.size(), T(guard))) inside.assign(inside.size() + 1, std::nan(""));
    return inside;
  }
};

/// Storage and compute scalar: all supported pairs.
template <class S_, class C_>
struct Scalars {
  using S = S_;
  using C = C_;
};
using AllScalars = std::tuple<Scalars<float, float>, Scalars<bfloat16, float>, Scalars<double, double>,
                              Scalars<float, double>, Scalars<bfloat16, double>>;

/// Tokens per group, input and output width, padding between rows.
struct Case {
  std::vector<Index> counts;
  Index in, out, padding;
};

struct Results {
  std::vector<double> y, dx, dx_added, dweight;
  friend bool operator==(const Results&, const Results&) = default;
};

/// Runs all products of a case; inputs are multiples of 1/128 below 1 (or `absolute`: their magnitudes), which every
/// storage type holds exactly. A case of one group takes the dense operations, with a padded weight.
template <class S, class C, class Device>
Results run(Device& device, const Case& c, bool absolute = false, std::uint64_t seed = 1) {
  const auto groups = static_cast<Index>(c.counts.size());
  std::vector<Index> offsets{0};
  for (const Index count : c.counts) offsets.push_back(offsets.back() + count);
  const Index tokens = offsets.back();
  const auto draw = [&](Index count, std::uint64_t stream) {
    Random random(Seed{seed}, stream);
    std::vector<double> values(static_cast<std::size_t>(count));
    for (double& value : values) {
      value = double(random.below(257)) / 128.0 - 1.0;
      if (absolute) value = std::abs(value);
    }
    return values;
  };
  const bool grouped = groups != 1;
  const Index padding = grouped ? 0 : c.padding;
  Guarded<C> x(tokens, c.in, c.padding), dy(tokens, c.out, c.padding), y(tokens, c.out, c.padding),
      dx(tokens, c.in, c.padding), added(tokens, c.in, c.padding), dweight(groups * c.out, c.in, padding);
  Guarded<S> weight(groups * c.out, c.in, padding);
  x.assign(draw(tokens * c.in, 1));
  dy.assign(draw(tokens * c.out, 2));
  weight.assign(draw(groups * c.out * c.in, 3));
  added.assign(draw(tokens * c.in, 4));
  dweight.assign(draw(groups * c.out * c.in, 5));
  y.assign(std::vector<double>(static_cast<std::size_t>(tokens * c.out), std::nan("")));
  dx.assign(std::vector<double>(static_cast<std::size_t>(tokens * c.in), std::nan("")));
  const MatrixView<const S> w = weight.view();
  if (grouped) {
    const Groups g{offsets.data(), groups};
    const MatrixStack<const S> stack{w.data, c.out, c.in};
    const MatrixStack<C> gradient{dweight.view().data, c.out, c.in};
    grouped_linear(device, g, x.view(), stack, y.view());
    grouped_linear_backward_input(device, g, dy.view(), stack, dx.view(), Into::assign);
    grouped_linear_backward_input(device, g, dy.view(), stack, added.view(), Into::add);
    grouped_linear_backward_weight<S>(device, g, dy.view(), x.view(), gradient, Into::add);
  } else {
    linear(device, x.view(), w, y.view());
    linear_backward_input(device, dy.view(), w, dx.view(), Into::assign);
    linear_backward_input(device, dy.view(), w, added.view(), Into::add);
    linear_backward_weight<S>(device, dy.view(), x.view(), dweight.view());
  }
  return {y.values(), dx.values(), added.values(), dweight.values()};
}

/// Largest error relative to the bound on rounding: a sum of n products in blocks of at most 256 has n + 2 roundings if
/// n is small, otherwise 256 plus one per block, each of at most half an epsilon of the sum of magnitudes.
template <class C>
double worst(const std::vector<double>& actual, const std::vector<double>& expected,
             const std::vector<double>& magnitudes, Index inner) {
  if (actual.size() != expected.size()) return INFINITY;
  const double roundings = double(std::min<Index>(inner, 256) + inner / 256 + 3);
  double result = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double allowed = roundings * 0.5 * double(std::numeric_limits<C>::epsilon()) * magnitudes[i];
    const double error = std::abs(actual[i] - expected[i]);
    if (!(error <= allowed)) return error / allowed;
    if (allowed > 0) result = std::max(result, error / allowed);
  }
  return result;
}

template <class S, class C>
void check(const Case& c) {
  cpu::Device device;
  reference::Device plain;
  const Results actual = run<S, C>(device, c), expected = run<double, double>(plain, c),
                magnitudes = run<double, double>(plain, c, true);
  const Index longest = c.counts.empty() ? 0 : *std::max_element(c.counts.begin(), c.counts.end());
  CAPTURE(c.counts, c.in, c.out, c.padding);
  CHECK(worst<C>(actual.y, expected.y, magnitudes.y, c.in) <= 1);
  CHECK(worst<C>(actual.dx, expected.dx, magnitudes.dx, c.out) <= 1);
  CHECK(worst<C>(actual.dx_added, expected.dx_added, magnitudes.dx_added, c.out) <= 1);
  CHECK(worst<C>(actual.dweight, expected.dweight, magnitudes.dweight, longest) <= 1);
}

const std::vector<Index> edges = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 65};

}  // namespace

TEMPLATE_LIST_TEST_CASE("products of any small shape agree with the reference", "[cpu][linear]", AllScalars) {
  using S = typename TestType::S;
  using C = typename TestType::C;
  Random random(Seed{11}, 0);
  const auto edge = [&] { return edges[random.below(edges.size())]; };
  for (int i = 0; i < 150; ++i) {
    check<S, C>({{edge()}, edge(), edge(), static_cast<Index>(random.below(2) * 3)});
  }
}

TEMPLATE_LIST_TEST_CASE("products across the edges of blocks agree with the reference", "[cpu][linear]", AllScalars) {
  using S = typename TestType::S;
  using C = typename TestType::C;
  for (const Case& c : {Case{{255}, 7, 16, 0}, Case{{256}, 16, 33, 1}, Case{{257}, 17, 9, 5}, Case{{7}, 255, 257, 2},
                        Case{{6}, 257, 31, 0}, Case{{3}, 769, 5, 0}, Case{{97}, 256, 256, 0}, Case{{13}, 513, 300, 7},
                        Case{{515}, 40, 24, 0}, Case{{1}, 1031, 127, 0}, Case{{101}, 3, 523, 3}}) {
    check<S, C>(c);
  }
}

TEMPLATE_LIST_TEST_CASE("grouped products agree with the reference for any loads", "[cpu][linear]", AllScalars) {
  using S = typename TestType::S;
  using C = typename TestType::C;
  for (const auto& counts : std::vector<std::vector<Index>>{
           {}, {0, 0}, {0, 5, 0, 0, 1, 30, 7, 6, 0}, {1, 1, 1, 1, 1, 1}, {0, 0, 120, 0}, {2, 3, 4, 17, 64}, {300, 1}}) {
    check<S, C>({counts, 33, 50, 3});
    check<S, C>({counts, 16, 1, 0});
    check<S, C>({counts, 1, 17, 0});
  }
}

TEST_CASE("a group's rows have the bits of a separate call", "[cpu][linear]") {
  cpu::Device device;
  const std::vector<Index> counts = {3, 0, 40, 1, 7, 100, 6};
  const Index in = 300, out = 70;
  std::vector<Index> offsets{0};
  for (const Index count : counts) offsets.push_back(offsets.back() + count);
  const auto groups = static_cast<Index>(counts.size());
  const auto x = test::uniform<float>(offsets.back() * in, 1), weight = test::uniform<float>(groups * out * in, 2);
  auto y = test::poison<float>(offsets.back() * out), alone = y;
  const MatrixStack<const float> stack{weight.data(), out, in};
  const auto x_view = matrix(x.data(), offsets.back(), in);
  grouped_linear(device, Groups{offsets.data(), groups}, x_view, stack, matrix(y.data(), offsets.back(), out));
  for (Index g = 0; g < groups; ++g) {
    const Index first = offsets[static_cast<std::size_t>(g)], count = counts[static_cast<std::size_t>(g)];
    linear(device, x_view.row_block(first, count), stack[g], matrix(alone.data() + first * out, count, out));
  }
  CHECK(y == alone);
}

TEMPLATE_LIST_TEST_CASE("one, two and three threads give the same bits", "[cpu][linear]", AllScalars) {
  using S = typename TestType::S;
  using C = typename TestType::C;
  cpu::Device one, two(Threads{2}), three(Threads{3});
  for (const Case& c : {Case{{200}, 300, 290, 0}, Case{{3}, 600, 700, 0}, Case{{700}, 65, 20, 1},
                        Case{{0, 90, 5, 0, 201, 1}, 130, 100, 0}, Case{{1, 400}, 90, 3, 2}}) {
    CAPTURE(c.counts, c.in, c.out);
    const Results expected = run<S, C>(one, c);
    CHECK(run<S, C>(two, c) == expected);
    CHECK(run<S, C>(three, c) == expected);
  }
}

TEMPLATE_TEST_CASE("a row's bits do not depend on the other rows of a call", "[cpu][linear]", float, double) {
  using C = TestType;
  cpu::Device device;
  const Index longest = cpu::few_rows + 30, rows = 30 + longest, in = 530, out = 83;
  const auto x = test::uniform<C>(rows * in, 1), weight = test::uniform<C>(out * in, 2);
  const auto x_view = matrix(x.data(), rows, in);
  const auto w_view = matrix(weight.data(), out, in);
  const auto product = [&](Index first, Index count) {
    auto y = test::poison<C>(count * out);
    linear(device, x_view.row_block(first, count), w_view, matrix(y.data(), count, out));
    return y;
  };
  const auto backward = [&](Index first, Index count) {
    auto dx = test::poison<C>(count * in);
    const auto dy = matrix(x.data(), rows, in).column_block(0, out);
    linear_backward_input(device, dy.row_block(first, count), w_view, matrix(dx.data(), count, in), Into::assign);
    return dx;
  };
  const auto rows_of = [](const std::vector<C>& all, Index first, Index count, Index columns) {
    return std::vector<C>(all.begin() + first * columns, all.begin() + (first + count) * columns);
  };
  const auto all = product(0, rows), all_backward = backward(0, rows);
  for (const Index first : {0, 1, 4, 17, 30}) {
    for (Index count = cpu::few_rows + 1; count <= longest; count += 3) {
      CAPTURE(first, count);
      CHECK(product(first, count) == rows_of(all, first, count, out));
    }
    for (Index count = 1; count <= longest; count += 3) {
      CHECK(backward(first, count) == rows_of(all_backward, first, count, in));
    }
    const auto few = product(first, cpu::few_rows);
    for (Index count = 1; count < cpu::few_rows; ++count) {
      CHECK(product(first, count) == rows_of(few, 0, count, out));
    }
  }
}

TEST_CASE("a NaN reaches its row or column and no other element", "[cpu][linear]") {
  cpu::Device device;
  const Index in = 70, out = 45;
  for (const Index rows : {Index{1}, Index{4}, cpu::few_rows, cpu::few_rows + 1, Index{50}}) {
    auto x = test::uniform<float>(rows * in, 1), weight = test::uniform<float>(out * in, 2);
    const Index bad_row = rows / 2, bad_column = 44;
    x[static_cast<std::size_t>(bad_row * in + 69)] = NAN;
    weight[static_cast<std::size_t>(bad_column * in + 3)] = NAN;
    auto y = test::uniform<float>(rows * out, 3);
    linear(device, matrix(x.data(), rows, in), MatrixView<const float>(matrix(weight.data(), out, in)),
           matrix(y.data(), rows, out));
    for (Index i = 0; i < rows * out; ++i) {
      CAPTURE(rows, i);
      CHECK(std::isnan(y[static_cast<std::size_t>(i)]) == (i / out == bad_row || i % out == bad_column));
    }
  }
}

TEMPLATE_LIST_TEST_CASE("bias and its gradient agree with the reference", "[cpu][linear]", AllScalars) {
  using S = typename TestType::S;
  using C = typename TestType::C;
  cpu::Device one, three(Threads{3});
  reference::Device plain;
  for (const Index rows : {0, 1, 2, 127, 128, 129, 1000}) {
    for (const Index columns : {0, 1, 7, 8, 16, 31, 32, 33, 64, 129, 500}) {
      const auto values = test::uniform<C>(rows * columns, 1);
      const auto stored = test::converted<S>(test::uniform<float>(columns, 2));
      const auto sums = test::uniform<C>(columns, 3);
      const auto run_on = [&](auto& device) {
        Guarded<C> y(rows, columns, 3), dbias(1, columns, 0);
        y.assign(test::converted<double>(values));
        dbias.assign(test::converted<double>(sums));
        bias_backward(device, y.view(), dbias.view().data);
        add_bias(device, stored.data(), y.view());
        return std::array{y.values(), dbias.values()};
      };
      const auto actual = run_on(one), expected = run_on(plain);
      CAPTURE(rows, columns);
      CHECK(run_on(three) == actual);
      // One rounding for y; for the gradient at most 128 + 8 of sums of up to 1000 terms, relative to a largest sum
      // that is about 30 times smaller than the sum of magnitudes.
      const double epsilon = double(std::numeric_limits<C>::epsilon());
      CHECK(test::relative_error(actual[0], expected[0]) <= epsilon);
      CHECK(test::relative_error(actual[1], expected[1]) <= 0.5 * 136 * 30 * epsilon);
    }
  }
}
