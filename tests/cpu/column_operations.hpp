#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <typeinfo>
#include <vector>

#include "moe_mamba/cpu/activation.hpp"
#include "moe_mamba/cpu/dispatch.hpp"
#include "moe_mamba/cpu/embedding.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/cpu/norm.hpp"
#include "moe_mamba/cpu/optimizer.hpp"
#include "support/data.hpp"

/// Operations of the CPU on matrices of some rows and any number of columns that treat every column alike, for tests of
/// properties that all of them have.
namespace test::columns {

using namespace moe_mamba;

/// The distribution of operands' values.
enum class Draw {
  alike,     ///< one value per row, in all its columns
  zeros,     ///< 0 and -0
  edges,     ///< 0, -0, ±1, the limit, and numbers whose squares and products are subnormal or 0
  ordinary,  ///< uniform
};

class Operands {
 public:
  Operands(Draw draw, std::uint64_t seed) : draw_(draw), random_(Seed{seed}) {}

  /// (rows, columns) between -limit and limit.
  template <class T>
  std::vector<T> matrix(Index rows, Index columns, double limit = 2) {
    std::vector<T> values;
    values.reserve(static_cast<std::size_t>(rows * columns));
    for (Index row = 0; row < rows; ++row) {
      T value = one<T>(limit);
      for (Index column = 0; column < columns; ++column) {
        values.push_back(value);
        if (draw_ != Draw::alike) value = one<T>(limit);
      }
    }
    return values;
  }

  /// The same, non-negative.
  template <class T>
  std::vector<T> positive(Index rows, Index columns, double limit = 2) {
    auto values = matrix<T>(rows, columns, limit);
    for (T& value : values) value = T(std::abs(static_cast<compute_t<T>>(value)));
    return values;
  }

  /// (columns, rows): the transpose, one column after the other.
  template <class T>
  std::vector<T> transposed(Index rows, Index columns, double limit = 2) {
    const auto values = matrix<T>(rows, columns, limit);
    std::vector<T> result(values.size());
    for (Index row = 0; row < rows; ++row) {
      for (Index column = 0; column < columns; ++column) {
        result[static_cast<std::size_t>(column * rows + row)] =
            values[static_cast<std::size_t>(row * columns + column)];
      }
    }
    return result;
  }

 private:
  template <class T>
  T one(double limit) {
    using C = compute_t<T>;
    using Limits = std::numeric_limits<C>;
    const bool special = draw_ == Draw::edges || (draw_ == Draw::alike && random_.below(4) == 0);
    if (draw_ == Draw::zeros) return T(static_cast<float>(random_.below(2) == 0 ? 0.0 : -0.0));
    if (!special) return T(static_cast<float>(random_.uniform(-limit, limit)));
    const C values[] = {C(0),
                        std::min(C(1), C(limit)),
                        C(limit),
                        Limits::denorm_min(),
                        Limits::min(),
                        Limits::epsilon(),
                        std::sqrt(Limits::min()),
                        C(1e-12)};
    const C value = values[random_.below(std::size(values))];
    return T(random_.below(2) == 0 ? value : -value);
  }

  Draw draw_;
  Random random_;
};

/// One result of an operation: `columns` elements in each row or, if `down`, its transpose (columns, rows); the first
/// `skip` columns are ignored.
template <class T>
struct Result {
  const std::vector<T>& values;
  Index columns;
  bool down = false;
  Index skip = 0;
};

template <class T>
Result(const std::vector<T>&, Index) -> Result<T>;

/// Calls check(name, call, results…) for each operation on elements or on rows of `columns` elements, where call() runs
/// it.
template <class S, class Check>
void each_elementwise(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  using C = compute_t<S>;
  constexpr Index rows = 2;
  const auto view = [=](std::vector<C>& values) { return moe_mamba::matrix(values.data(), rows, columns); };
  auto x = operands.matrix<C>(rows, columns), y = operands.matrix<C>(rows, columns), z = y;
  double sum = 0;
  check(
      "add", [&] { add(device, view(x), view(y)); }, Result{y, columns});
  check(
      "scale", [&] { scale(device, C(0.3), view(y)); }, Result{y, columns});
  check(
      "squared_error", [&] { squared_error(device, view(x), view(y), 0.3, view(z), &sum); }, Result{z, columns});
  check("sum_of_squares", [&] { sum_of_squares(device, x.data(), rows * columns, &sum); });

  const auto bias = operands.matrix<S>(1, columns);
  auto dbias = operands.matrix<C>(1, columns);
  check(
      "add_bias", [&] { add_bias(device, bias.data(), view(y)); }, Result{y, columns});
  check(
      "bias_backward", [&] { bias_backward(device, view(x), dbias.data()); }, Result{dbias, columns});

  const std::vector<Token> tokens = {1, 0};
  const auto weight = operands.matrix<S>(rows, columns);
  check(
      "embed", [&] { embed(device, tokens.data(), moe_mamba::matrix<const S>(weight.data(), rows, columns), view(z)); },
      Result{z, columns});
  check(
      "embed_backward", [&] { embed_backward(device, tokens.data(), view(x), view(z)); }, Result{z, columns});

  const std::vector<Index> slots = {1, 0, 0, -1};  // two of each token
  const auto gates = operands.matrix<C>(1, 4);
  auto dy = z;
  std::vector<C> dgates(4);
  check(
      "combine_rows", [&] { combine_rows(device, view(x), slots.data(), 2, gates.data(), view(z), Into::add); },
      Result{z, columns});
  check(
      "combine_rows_backward",
      [&] { combine_rows_backward(device, view(x), slots.data(), 2, gates.data(), view(y), view(dy), dgates.data()); },
      Result{dy, columns});

  std::vector<S> parameters = operands.matrix<S>(1, columns);
  const auto gradient = operands.matrix<C>(1, columns);
  auto first_moment = operands.matrix<C>(1, columns), second_moment = operands.positive<C>(1, columns);
  std::vector<std::int16_t> remainder(parameters.size());
  const Index boundary = 0;
  const AdamWUpdate<C, S> update{.count = columns,
                                 .parameters = parameters.data(),
                                 .remainder = AdamWUpdate<C, S>::keeps_remainder ? remainder.data() : nullptr,
                                 .gradient = gradient.data(),
                                 .first_moment = first_moment.data(),
                                 .second_moment = second_moment.data(),
                                 .scale = 0.7,
                                 .rate = 0.01,
                                 .beta1 = 0.9,
                                 .beta2 = 0.999,
                                 .epsilon = 1e-8,
                                 .decay = 0.1,
                                 .decay_boundaries = &boundary,
                                 .boundary_count = 1,
                                 .correction1 = 0.19,
                                 .correction2 = 0.002};
  check(
      "adamw", [&] { adamw(device, update); }, Result{parameters, columns}, Result{remainder, columns},
      Result{first_moment, columns}, Result{second_moment, columns});
}

/// The same for norms.
template <class S, class Check>
void each_norm(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  using C = compute_t<S>;
  constexpr Index rows = 20;  // more than one segment
  const auto view = [=](std::vector<C>& values) { return moe_mamba::matrix(values.data(), rows, columns); };
  auto x = operands.matrix<C>(rows, columns), dy = operands.matrix<C>(rows, columns);
  auto y = x, dx = operands.matrix<C>(rows, columns);
  auto dgain = operands.matrix<C>(1, columns), dbias = operands.matrix<C>(1, columns);
  const auto gain = operands.matrix<S>(1, columns), bias = operands.matrix<S>(1, columns);
  std::vector<C> mean(rows), inverse(rows);
  check(
      "rms_norm", [&] { rms_norm(device, view(x), gain.data(), 1e-5, view(y), inverse.data()); }, Result{y, columns});
  check(
      "rms_norm_backward",
      [&] { rms_norm_backward(device, view(x), gain.data(), inverse.data(), view(dy), view(dx), dgain.data()); },
      Result{dx, columns}, Result{dgain, columns});
  const S* const none = nullptr;
  check(
      "rms_norm without gain", [&] { rms_norm(device, view(x), none, 1e-5, view(y), inverse.data()); },
      Result{y, columns});
  check(
      "rms_norm_backward without gain",
      [&] { rms_norm_backward(device, view(x), none, inverse.data(), view(dy), view(dx), static_cast<C*>(nullptr)); },
      Result{dx, columns});
  check(
      "layer_norm",
      [&] { layer_norm(device, view(x), gain.data(), bias.data(), 1e-5, view(y), mean.data(), inverse.data()); },
      Result{y, columns});
  check(
      "layer_norm_backward",
      [&] {
        layer_norm_backward(device, view(x), gain.data(), mean.data(), inverse.data(), view(dy), view(dx), dgain.data(),
                            dbias.data());
      },
      Result{dx, columns}, Result{dgain, columns}, Result{dbias, columns});
}

/// One activation and its gradient; the activation is constant or linear beyond `limit`.
template <class Activation, class C, class Check>
void each_activation(cpu::Device& device, Operands& operands, Index columns, double limit, const Check& check) {
  constexpr Index rows = 2, inputs = Activation::gated ? 2 : 1;
  // Gate and up of a row are consecutive, as two rows of `columns`.
  auto h = operands.matrix<C>(rows * inputs, columns, limit), dh = h;
  auto a = operands.matrix<C>(rows, columns), da = a;
  const auto inner = moe_mamba::matrix(h.data(), rows, inputs * columns);
  const auto outer = moe_mamba::matrix(dh.data(), rows, inputs * columns);
  check(
      std::string("activate, ") + typeid(Activation).name(),
      [&] { activate(device, Activation{}, inner, moe_mamba::matrix(a.data(), rows, columns)); }, Result{a, columns});
  check(
      std::string("activate_backward, ") + typeid(Activation).name(),
      [&] { activate_backward(device, Activation{}, inner, moe_mamba::matrix(da.data(), rows, columns), outer); },
      Result{dh, columns});
}

/// Products, biases and their gradients.
template <class S, class Check>
void each_product(cpu::Device& device, Operands& operands, Index columns, Index rows, const Check& check) {
  using C = compute_t<S>;
  constexpr Index inner = 37;
  // One matrix with as many rows as the result has columns, and one with as many columns.
  const auto x = operands.matrix<C>(rows, inner), dy = operands.matrix<C>(rows, columns);
  const auto tall = operands.transposed<S>(inner, columns), wide = operands.matrix<S>(inner, columns);
  auto y = operands.matrix<C>(rows, columns), dtall = operands.transposed<C>(inner, columns);
  auto dwide = operands.matrix<C>(inner, columns);
  const auto input = moe_mamba::matrix(x.data(), rows, inner), incoming = moe_mamba::matrix(dy.data(), rows, columns);
  const auto output = moe_mamba::matrix(y.data(), rows, columns);
  const auto wide_view = moe_mamba::matrix(wide.data(), inner, columns);
  check(
      "linear", [&] { linear(device, input, moe_mamba::matrix(tall.data(), columns, inner), output); },
      Result{y, columns});
  check(
      "linear_backward_input", [&] { linear_backward_input(device, input, wide_view, output, Into::add); },
      Result{y, columns});
  check(
      "linear_backward_weight, rows",
      [&] { linear_backward_weight<S>(device, incoming, input, moe_mamba::matrix(dtall.data(), columns, inner)); },
      Result<C>{dtall, columns, true});
  check(
      "linear_backward_weight, columns",
      [&] { linear_backward_weight<S>(device, input, incoming, moe_mamba::matrix(dwide.data(), inner, columns)); },
      Result{dwide, columns});
}

}  // namespace test::columns
