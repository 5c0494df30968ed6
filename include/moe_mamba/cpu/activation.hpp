#pragma once

#include <cmath>
#include <concepts>

#include "moe_mamba/cpu/chunks.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/ops/activation.hpp"

/// Activations of feed-forward layers on the CPU; the contract is in ops/activation.hpp. The built-in ones run on
/// packets, a user's own element by element. An element's bits do not depend on its position in the row.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// The normal distribution function Φ (`value`) and its density (`derivative`).
///
/// In double they are the C library's, element by element. In float, with a = |x| and t = 1 / (1 + 0.35 a), Φ(-a) =
/// exp(-a²/2) t Q(t): a variant of Hastings' approximation that is accurate in the far tail too. Q is the minimax
/// polynomial of degree 8, with a relative error of 3.2e-8 for a <= 13.5, beyond which Φ(-a) underflows. In float
/// arithmetic Φ is off by at most 1.5e-7, and gelu(x) by at most 1.5e-7 · max(1, |x|).
template <PacketLike P>
[[gnu::always_inline]] inline ValueAndDerivative<P> normal_distribution(const P& x) {
  const P a = min(abs(x), 40);  // the result is constant beyond, and the square could overflow
  if constexpr (std::same_as<scalar_of<P>, float>) {
    const P one = 1.0f;
    const P t = one / fma(0.35f, a, one);
    const P q = horner(t, -0.02912586355321214f, 0.1438722301592158f, -0.2555045607088833f, 0.15892929461170363f,
                       -0.022937146723221582f, 0.1054329426957334f, 0.11985243520076008f, 0.13985908265351527f,
                       0.13962156978442583f);
    const P e = exponential(a * a * -0.5f);
    const P tail = t * q * e;
    return {select(0 < x, one - tail, tail), e * 0.39894228040143267794f};
  } else {
    alignas(64) double values[lanes<P>], densities[lanes<P>];
    store(values, x);
    store(densities, a * a * -0.5);
    for (Index i = 0; i < lanes<P>; ++i) {
      densities[i] = std::exp(densities[i]) * 0.39894228040143267794;
      values[i] = (std::erf(values[i] * 0.70710678118654752440) + 1) * 0.5;
    }
    return {load<P>(values), load<P>(densities)};
  }
}

/// Replaces lanes<Packet<C>> elements by their Activation::value and, if want_derivative, writes the derivatives. Not
/// inlined: a compiler may contract products and sums differently in each inlined copy, and whole packets and the rest
/// of a row would then differ in their bits.
template <class Activation, bool want_derivative, ComputeScalar C>
[[gnu::noinline]] void apply_to_lanes(C* values, C* derivatives) {
  for (Index i = 0; i < lanes<Packet<C>>; ++i) {
    const C x = values[i];
    values[i] = Activation::value(x);
    if (want_derivative) derivatives[i] = Activation::derivative(x);
  }
}

template <class Activation, class... Types>
inline constexpr bool is_one_of = (std::same_as<Activation, Types> || ...);

/// Activation::value and, if want_derivative, Activation::derivative in each lane. Packets and single elements take the
/// same path, so an element's result does not depend on its position in the row.
template <class Activation, bool want_derivative, PacketLike P>
[[gnu::always_inline]] inline ValueAndDerivative<P> activation(const P& x) {
  using C = scalar_of<P>;
  if constexpr (is_one_of<Activation, Relu>) {
    return {max(x, 0), select(0 < x, P(1), 0)};
  } else if constexpr (is_one_of<Activation, SquaredRelu>) {
    const P positive = max(x, 0);
    return {positive * positive, positive + positive};
  } else if constexpr (is_one_of<Activation, Silu, SwiGlu>) {
    return silu_with_derivative(x);
  } else if constexpr (is_one_of<Activation, Gelu, GeGlu>) {
    const auto normal = normal_distribution(x);
    return {x * normal.value, fma(x, normal.derivative, normal.value)};
  } else {
    alignas(64) C values[lanes<Packet<C>>], derivatives[lanes<Packet<C>>] = {};
    for (Index i = 0; i < lanes<Packet<C>>; i += lanes<P>) store(values + i, x);  // a single element in every lane
    apply_to_lanes<Activation, want_derivative>(values, derivatives);
    return {load<P>(values), load<P>(derivatives)};
  }
}

}  // namespace detail

/// a = f(h), or a = f(gate) · up with h = [gate | up]; a may be h unless the activation is gated.
template <class Activation, ComputeScalar C>
void activate(Device& device, Activation, Input<C> h, MatrixView<C> a) {
  const bool contiguous = !Activation::gated && detail::all_contiguous(h, a);
  detail::for_segments(device, a.rows, a.columns, contiguous, [&](Index row, Index column, Index count) {
    const C* gate = h.row(row) + column;
    const C* up = Activation::gated ? gate + a.columns : gate;
    C* to = a.row(row) + column;
    detail::sweep<C>(count, [=]<class P>(Index i) {
      const P value = detail::activation<Activation, false>(load<P>(gate + i)).value;
      if constexpr (Activation::gated) {
        store(to + i, value * load<P>(up + i));
      } else {
        store(to + i, value);
      }
    });
  });
}

/// dh = da ∂a/∂h; dh may be h, or da unless the activation is gated.
template <class Activation, ComputeScalar C>
void activate_backward(Device& device, Activation, Input<C> h, Input<C> da, MatrixView<C> dh) {
  const bool contiguous = !Activation::gated && detail::all_contiguous(h, da, dh);
  detail::for_segments(device, da.rows, da.columns, contiguous, [&](Index row, Index column, Index count) {
    const C* gate = h.row(row) + column;
    const C* up = Activation::gated ? gate + da.columns : gate;
    const C* gradient = da.row(row) + column;
    C* dgate = dh.row(row) + column;
    C* dup = Activation::gated ? dgate + da.columns : dgate;
    detail::sweep<C>(count, [=]<class P>(Index i) {
      const auto f = detail::activation<Activation, true>(load<P>(gate + i));
      const P incoming = load<P>(gradient + i);
      if constexpr (Activation::gated) {
        const P outer = incoming * load<P>(up + i);
        store(dup + i, incoming * f.value);
        store(dgate + i, outer * f.derivative);
      } else {
        store(dgate + i, incoming * f.derivative);
      }
    });
  });
}

/// activate() for the rows of all groups.
template <class Activation, ComputeScalar C>
void grouped_activate(Device& device, Groups groups, Activation function, Input<C> h, MatrixView<C> a) {
  const Index rows = groups.offsets[groups.count];
  activate(device, function, h.row_block(0, rows), a.row_block(0, rows));
}

/// activate_backward() for the rows of all groups.
template <class Activation, ComputeScalar C>
void grouped_activate_backward(Device& device, Groups groups, Activation function, Input<C> h, Input<C> da,
                               MatrixView<C> dh) {
  const Index rows = groups.offsets[groups.count];
  activate_backward(device, function, h.row_block(0, rows), da.row_block(0, rows), dh.row_block(0, rows));
}

}  // namespace moe_mamba::inline v0_2::cpu
