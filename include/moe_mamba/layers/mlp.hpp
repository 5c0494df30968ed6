#pragma once

#include <array>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/ops/activation.hpp"
#include "moe_mamba/ops/linear.hpp"

namespace moe_mamba {

/// Feed-forward layer without biases: down(f(up(x))), or down(f(gate(x)) · up(x)) with a gated activation, whose up
/// matrix holds the rows of the gate first.
template <int D, int H, class Activation>
struct MlpLayer : LayerDefaults {
  static constexpr int rows = Activation::gated ? 2 * H : H;

  static constexpr std::array<Parameter, 2> parameters =
      lay_out(std::array{matrix_parameter("up.weight", rows, D, {Initial::Law::truncated_normal, 0.1, D}),
                         matrix_parameter("down.weight", D, H, {Initial::Law::truncated_normal, 0.1, H})});
  static constexpr Index up = offset_of(parameters, "up.weight");
  static constexpr Index down = offset_of(parameters, "down.weight");

  static constexpr Index active_parameters = total_size(parameters);
  static constexpr double flops_per_token = 2.0 * active_parameters;
  static constexpr bool takes_packed = true;

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape)
        : hidden(matrix(arena.take<C>(shape.tokens() * rows), shape.tokens(), rows)),
          active(matrix(arena.take<C>(shape.tokens() * H), shape.tokens(), H)) {}
    MatrixView<C> hidden;  // (T, H or 2H): before the activation
    MatrixView<C> active;  // (T, H)
  };

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return largest_scratch<NoBuffers, BackwardScratch<C>>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, MatrixView<const C> x, MatrixView<C> y) {
    const Saved<C> saved(run.tape, run.shape);
    linear(run.device, x, matrix(run.parameters + up, rows, D), saved.hidden);
    activate(run.device, Activation{}, saved.hidden, saved.active);
    linear(run.device, saved.active, matrix(run.parameters + down, D, H), y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const Saved<C> saved(run.tape, run.shape);
    const BackwardScratch<C> scratch(run.scratch, run.device, run.shape);
    linear_backward_weight<S>(run.device, dy, saved.active, matrix(run.gradients + down, D, H));
    linear_backward_input(run.device, dy, matrix(run.parameters + down, D, H), scratch.dactive, Into::assign);
    activate_backward(run.device, Activation{}, saved.hidden, scratch.dactive, scratch.dhidden);
    linear_backward_weight<S>(run.device, scratch.dhidden, x, matrix(run.gradients + up, rows, D));
    linear_backward_input(run.device, scratch.dhidden, matrix(run.parameters + up, rows, D), dx, Into::assign);
  }

 private:
  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device&, Shape shape)
        : dactive(matrix(arena.take<C>(shape.tokens() * H), shape.tokens(), H)),
          dhidden(matrix(arena.take<C>(shape.tokens() * rows), shape.tokens(), rows)) {}
    MatrixView<C> dactive;  // (T, H)
    MatrixView<C> dhidden;  // (T, H or 2H)
  };
};

namespace detail {

/// An activation: `gated`, `value` and `derivative`. The library's stand in ops/activation.hpp.
template <class T>
concept ActivationType = requires(float x) {
  { T::gated } -> std::convertible_to<bool>;
  { T::value(x) } -> std::convertible_to<float>;
  { T::derivative(x) } -> std::convertible_to<float>;
};

template <class T>
struct IsActivation {
  static constexpr bool value = ActivationType<T>;
};

/// The activation among Options, Relu when there is none.
template <class... Options>
using activation_of = typename FirstMatch<IsActivation, Relu, Options...>::type;

template <class Layer, int Activations>
struct OneActivation {
  static_assert(Activations <= 1, "more than one activation is given: OneActivation<layer, activations given>");
};

template <class Layer, class Option>
struct MlpTakes {
  static_assert(is_integer_option<Hidden, Option> || ActivationType<Option>,
                "Mlp takes the option Hidden<H> and an activation (Relu, SquaredRelu, Gelu, Silu, SwiGlu, GeGlu or "
                "your own with gated, value and derivative) "
                "and no other: MlpTakes<layer, option>");
};

template <class Layer, class... Options>
consteval bool check_mlp() {
  check<MlpTakes<Layer, Options>...>();
  check<OneActivation<Layer, (0 + ... + int(ActivationType<Options>))>>();
  check_integer_option<Layer, Hidden, 1, 1 << 24, Options...>();
  return true;
}

}  // namespace detail

/// A dense feed-forward layer. Options: Hidden<4 · width>, an activation (Relu).
template <class... Options>
struct Mlp {
  static_assert(detail::check_mlp<Mlp, Options...>());

  template <int W>
  using Layer = MlpLayer<W, detail::option_value<Hidden, 4 * W, Options...>(), detail::activation_of<Options...>>;
};

}  // namespace moe_mamba
