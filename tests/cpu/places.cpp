#include <bit>
#include <cfenv>
#include <initializer_list>
#include <numeric>
#include <string>
#include <vector>

#include "moe_mamba/cpu/activation.hpp"
#include "moe_mamba/cpu/causal_convolution.hpp"
#include "moe_mamba/cpu/dispatch.hpp"
#include "moe_mamba/cpu/elementwise.hpp"
#include "moe_mamba/cpu/embedding.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/cpu/norm.hpp"
#include "moe_mamba/cpu/optimizer.hpp"
#include "moe_mamba/cpu/router.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

// What an operation makes of an element depends on numbers, never on where they lie: in a packet or behind the last whole one.
// And no operation raises a floating-point exception over finite numbers, zeros and subnormal ones among them, so that a
// program which traps those can use the library.
//
// An operation is a function run(first, count) of a table of items, columns or rows, of which it is given some; what it
// says of an item must be the same bits when the window of items is moved by one.

using namespace moe_mamba;

namespace {

using Items = std::vector<std::vector<double>>;  // what comes out, for each item

/// `items` columns of `rows` numbers, all of the size of `scale`.
template <class T>
struct Columns {
  Index rows, items;
  std::vector<T> values;

  Columns(Index row_count, Index item_count, std::uint64_t seed, double scale)
      : rows(row_count), items(item_count), values(test::uniform<T>(row_count * item_count, seed, -scale, scale)) {}

  /// Columns first … first + count - 1, as a matrix of their own.
  std::vector<T> window(Index first, Index count) const {
    std::vector<T> part;
    for (Index row = 0; row < rows; ++row) {
      const auto begin = values.begin() + row * items + first;
      part.insert(part.end(), begin, begin + count);
    }
    return part;
  }
};

/// Adds to each item its column of a matrix of `items.size()` columns.
template <class T>
void add_columns(Items& items, const std::vector<T>& matrix) {
  for (std::size_t i = 0; i < matrix.size(); ++i) items[i % items.size()].push_back(static_cast<double>(matrix[i]));
}

/// Adds to each item its rows of a matrix, as many for each.
template <class T>
void add_rows(Items& items, const std::vector<T>& matrix) {
  const std::size_t each = matrix.size() / items.size();
  for (std::size_t i = 0; i < matrix.size(); ++i) items[i / each].push_back(static_cast<double>(matrix[i]));
}

constexpr auto traps = FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW;
constexpr Index most = 70;
constexpr std::initializer_list<Index> counts = {2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 69};

/// The table has one item more than `most`.
template <class Run>
void check_places(const std::string& operation, const Run& run) {
  for (const Index count : counts) {
    CAPTURE(operation, count);
    std::feclearexcept(FE_ALL_EXCEPT);
    const Items items = run(0, count), moved = run(1, count);
    CHECK(std::fetestexcept(traps) == 0);
    std::size_t wrong = 0;
    for (std::size_t i = 1; i < items.size(); ++i) {
      for (std::size_t k = 0; k < items[i].size(); ++k) {
        wrong += std::bit_cast<std::uint64_t>(items[i][k]) != std::bit_cast<std::uint64_t>(moved[i - 1][k]);
      }
    }
    CHECK(wrong == 0);
  }
}

Items no_items(Index count) { return Items(static_cast<std::size_t>(count)); }

const auto scales = {0.0, 1e-40, 1e-20, 1.0, 30.0};

template <class C, class Activation>
void check_activation(const std::string& name, cpu::Device& device, double scale) {
  constexpr Index rows = 3;
  const Columns<C> gate(rows, most + 1, 1, scale), up(rows, most + 1, 2, scale), gradient(rows, most + 1, 3, scale);
  check_places(name, [&](Index first, Index count) {
    const Index width = Activation::gated ? 2 * count : count;
    const auto gates = gate.window(first, count), ups = up.window(first, count), da = gradient.window(first, count);
    std::vector<C> h(static_cast<std::size_t>(rows * width)), a(gates.size()), dh(h.size());
    for (Index row = 0; row < rows; ++row) {
      std::copy_n(gates.begin() + row * count, count, h.begin() + row * width);
      if (Activation::gated) std::copy_n(ups.begin() + row * count, count, h.begin() + row * width + count);
    }
    cpu::activate(device, Activation(), matrix<const C>(h.data(), rows, width), matrix(a.data(), rows, count));
    cpu::activate_backward(device, Activation(), matrix<const C>(h.data(), rows, width),
                           matrix<const C>(da.data(), rows, count), matrix(dh.data(), rows, width));
    Items items = no_items(count);
    add_columns(items, a);
    for (std::size_t i = 0; i < dh.size(); ++i) items[i % static_cast<std::size_t>(count)].push_back(double(dh[i]));
    return items;
  });
}

}  // namespace

TEMPLATE_TEST_CASE("activations", "[cpu][places]", float, double) {
  cpu::Device device;
  for (const double scale : {0.0, 1e-40, 1e-20, 1.0, 30.0, 1e4}) {
    CAPTURE(scale);
    check_activation<TestType, Relu>("Relu", device, scale);
    check_activation<TestType, SquaredRelu>("SquaredRelu", device, scale);
    check_activation<TestType, Gelu>("Gelu", device, scale);
    check_activation<TestType, Silu>("Silu", device, scale);
    check_activation<TestType, SwiGlu>("SwiGlu", device, scale);
    check_activation<TestType, GeGlu>("GeGlu", device, scale);
  }
}

TEMPLATE_TEST_CASE("sums, errors and biases", "[cpu][places]", float, double) {
  using C = TestType;
  constexpr Index rows = 5;
  cpu::Device device;
  for (const double scale : scales) {
    CAPTURE(scale);
    const Columns<C> left(rows, most + 1, 1, scale), right(rows, most + 1, 2, scale), bias(1, most + 1, 3, scale);
    check_places("add", [&](Index first, Index count) {
      const auto x = left.window(first, count);
      auto y = right.window(first, count);
      cpu::add(device, matrix<const C>(x.data(), rows, count), matrix(y.data(), rows, count));
      Items items = no_items(count);
      add_columns(items, y);
      return items;
    });
    check_places("squared_error", [&](Index first, Index count) {
      const auto x = left.window(first, count), target = right.window(first, count);
      std::vector<C> dx(x.size());
      double sum = 0;
      cpu::squared_error(device, matrix<const C>(x.data(), rows, count), matrix<const C>(target.data(), rows, count),
                         0.3, matrix(dx.data(), rows, count), &sum);
      Items items = no_items(count);
      add_columns(items, dx);
      return items;
    });
    check_places("add_bias and bias_backward", [&](Index first, Index count) {
      auto y = left.window(first, count), dbias = bias.window(first, count);
      const auto b = bias.window(first, count), dy = right.window(first, count);
      cpu::add_bias(device, b.data(), matrix(y.data(), rows, count));
      cpu::bias_backward(device, matrix<const C>(dy.data(), rows, count), dbias.data());
      Items items = no_items(count);
      add_columns(items, y);
      add_columns(items, dbias);
      return items;
    });
    check_places("combine_rows", [&](Index first, Index count) {
      const auto y = left.window(first, count), dout = right.window(first, count);
      const std::vector<Index> slots = {0, 3, 4, -1, 2, 1};
      const std::vector<C> gates = {C(0.25), C(0.7), C(0.5), C(0), C(0.1), C(0.9)};
      std::vector<C> out(static_cast<std::size_t>(3 * count)), dgates(6);
      std::vector<C> dy(y.size());
      cpu::combine_rows(device, matrix<const C>(y.data(), rows, count), slots.data(), 2, gates.data(),
                        matrix(out.data(), 3, count), Into::assign);
      cpu::combine_rows_backward(device, matrix<const C>(y.data(), rows, count), slots.data(), 2, gates.data(),
                                 matrix<const C>(dout.data(), 3, count), matrix(dy.data(), rows, count), dgates.data());
      Items items = no_items(count);
      add_columns(items, out);
      add_columns(items, dy);
      return items;
    });
  }
}

TEMPLATE_TEST_CASE("embeddings and AdamW", "[cpu][places]", float, double, bfloat16) {
  using S = TestType;
  using C = compute_t<S>;
  cpu::Device device;
  for (const double scale : scales) {
    CAPTURE(scale);
    const Columns<S> weights(4, most + 1, 1, scale);
    const Columns<C> gradient(4, most + 1, 2, scale), moment(4, most + 1, 3, scale);
    const std::vector<Token> tokens = {1, 3, 1, 0};
    check_places("embed", [&](Index first, Index count) {
      const auto weight = weights.window(first, count);
      const auto dx = gradient.window(first, count);
      std::vector<C> x(dx.size()), dweight = moment.window(first, count);
      cpu::embed(device, tokens.data(), matrix<const S>(weight.data(), 4, count), matrix(x.data(), 4, count));
      cpu::embed_backward(device, tokens.data(), matrix<const C>(dx.data(), 4, count),
                          matrix(dweight.data(), 4, count));
      Items items = no_items(count);
      add_columns(items, x);
      add_columns(items, dweight);
      return items;
    });
    check_places("adamw", [&](Index first, Index count) {
      std::vector<S> parameters(weights.values.begin() + first, weights.values.begin() + first + count);
      std::vector<C> g(gradient.values.begin() + first, gradient.values.begin() + first + count);
      std::vector<C> m(moment.values.begin() + first, moment.values.begin() + first + count), v(m.size());
      for (std::size_t i = 0; i < v.size(); ++i) v[i] = m[i] > 0 ? m[i] * m[i] : 0;
      std::vector<std::int16_t> remainder(parameters.size());
      const Index decays = 0;
      cpu::adamw(device, AdamWUpdate<C, S>{.count = count,
                                           .parameters = parameters.data(),
                                           .remainder = AdamWUpdate<C, S>::keeps_remainder ? remainder.data() : nullptr,
                                           .gradient = g.data(),
                                           .first_moment = m.data(),
                                           .second_moment = v.data(),
                                           .scale = 0.5,
                                           .rate = 0.01,
                                           .beta1 = 0.9,
                                           .beta2 = 0.95,
                                           .epsilon = 1e-8,
                                           .decay = 0.1,
                                           .decay_toggles = &decays,
                                           .toggle_count = 1,
                                           .correction1 = 0.1,
                                           .correction2 = 0.05});
      double squares = 0;
      cpu::sum_of_squares(device, g.data(), count, &squares);
      Items items = no_items(count);
      add_columns(items, parameters);
      add_columns(items, remainder);
      add_columns(items, m);
      add_columns(items, v);
      return items;
    });
  }
}
