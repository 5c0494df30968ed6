#pragma once

#include <cmath>
#include <type_traits>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/norm.hpp"
#include "moe_mamba/reference/device.hpp"
#include "moe_mamba/reference/elementwise.hpp"

/// The reference of ops/norm.hpp.
namespace moe_mamba::inline v0_2::reference {

template <class X, class Y, class S, class C>
void rms_norm(Device&, MatrixView<X> x, const S* gain, double epsilon, MatrixView<Y> y, C* inverse) {
  for (Index t = 0; t < x.rows; ++t) {
    double sum = 0;
    for (Index i = 0; i < x.columns; ++i) sum += double(x(t, i)) * double(x(t, i));
    const double scale = 1 / std::sqrt(sum / double(x.columns) + epsilon);
    for (Index i = 0; i < x.columns; ++i)
      y(t, i) = Y(double(x(t, i)) * scale * (gain == nullptr ? 1.0 : double(gain[i])));
    inverse[t] = C(scale);
  }
}

template <class X, class Y, class S, class C>
void rms_norm_backward(Device& device, Input<X> x, const S* gain, const C* inverse, MatrixView<Y> dy, MatrixView<X> dx,
                       C* dgain, MatrixView<std::remove_const_t<Y>> kept = {}) {
  const auto factor = [&](Index i) { return gain == nullptr ? 1.0 : double(gain[i]); };
  for (Index t = 0; t < x.rows; ++t) {
    const double scale = double(inverse[t]);
    double mean = 0;  // of dy · gain · x · inverse
    for (Index i = 0; i < x.columns; ++i) mean += double(dy(t, i)) * factor(i) * double(x(t, i)) * scale;
    mean /= double(x.columns);
    for (Index i = 0; i < x.columns; ++i) {
      const double normalised = double(x(t, i)) * scale;
      dx(t, i) = X(double(dx(t, i)) + scale * (double(dy(t, i)) * factor(i) - normalised * mean));
    }
  }
  if (kept.data != nullptr) copy(device, dx, kept);
  for (Index i = 0; i < x.columns && dgain != nullptr; ++i) {
    double sum = double(dgain[i]);
    for (Index t = 0; t < x.rows; ++t) sum += double(dy(t, i)) * double(x(t, i)) * double(inverse[t]);
    dgain[i] = C(sum);
  }
}

template <class X, class Y, class S, class C>
void layer_norm(Device&, MatrixView<X> x, const S* gain, const S* bias, double epsilon, MatrixView<Y> y, C* mean,
                C* inverse) {
  for (Index t = 0; t < x.rows; ++t) {
    double average = 0;
    for (Index i = 0; i < x.columns; ++i) average += double(x(t, i));
    average /= double(x.columns);
    double variance = 0;
    for (Index i = 0; i < x.columns; ++i) variance += (double(x(t, i)) - average) * (double(x(t, i)) - average);
    variance /= double(x.columns);
    const double scale = 1 / std::sqrt(variance + epsilon);
    for (Index i = 0; i < x.columns; ++i) {
      y(t, i) = Y((double(x(t, i)) - average) * scale * double(gain[i]) + double(bias[i]));
    }
    mean[t] = C(average);
    inverse[t] = C(scale);
  }
}

template <class X, class Y, class S, class C>
void layer_norm_backward(Device& device, Input<X> x, const S* gain, const C* mean, const C* inverse, MatrixView<Y> dy,
                         MatrixView<X> dx, C* dgain, C* dbias, MatrixView<std::remove_const_t<Y>> kept = {}) {
  for (Index t = 0; t < x.rows; ++t) {
    const double scale = double(inverse[t]);
    double mean_gradient = 0, mean_product = 0;  // of dy · gain, and of dy · gain times the normalised row
    for (Index i = 0; i < x.columns; ++i) {
      const double gradient = double(dy(t, i)) * double(gain[i]);
      mean_gradient += gradient;
      mean_product += gradient * (double(x(t, i)) - double(mean[t])) * scale;
    }
    mean_gradient /= double(x.columns);
    mean_product /= double(x.columns);
    for (Index i = 0; i < x.columns; ++i) {
      const double normalised = (double(x(t, i)) - double(mean[t])) * scale;
      const double gradient = double(dy(t, i)) * double(gain[i]);
      dx(t, i) = X(double(dx(t, i)) + scale * (gradient - mean_gradient - normalised * mean_product));
    }
  }
  if (kept.data != nullptr) copy(device, dx, kept);
  for (Index i = 0; i < x.columns; ++i) {
    double gain_sum = double(dgain[i]), bias_sum = double(dbias[i]);
    for (Index t = 0; t < x.rows; ++t) {
      gain_sum += double(dy(t, i)) * (double(x(t, i)) - double(mean[t])) * double(inverse[t]);
      bias_sum += double(dy(t, i));
    }
    dgain[i] = C(gain_sum);
    dbias[i] = C(bias_sum);
  }
}

/// x += rows and kept = x, if `rows` and `kept` have data.
template <class X, class Y>
void join(Device& device, const Joined<X, Y>& joined) {
  if (joined.rows.data != nullptr) add(device, joined.rows, joined.x);
  if (joined.kept.data != nullptr) copy(device, joined.x, joined.kept);
}

template <class X, class Y, class S, class C>
void add_rms_norm(Device& device, const Joined<X, Y>& joined, const S* gain, double epsilon, MatrixView<Y> y,
                  C* inverse) {
  join(device, joined);
  rms_norm(device, joined.x, gain, epsilon, y, inverse);
}

template <class X, class Y, class S, class C>
void add_layer_norm(Device& device, const Joined<X, Y>& joined, const S* gain, const S* bias, double epsilon,
                    MatrixView<Y> y, C* mean, C* inverse) {
  join(device, joined);
  layer_norm(device, joined.x, gain, bias, epsilon, y, mean, inverse);
}

}  // namespace moe_mamba::inline v0_2::reference
