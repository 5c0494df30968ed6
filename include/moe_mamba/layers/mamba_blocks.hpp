#pragma once

#include <type_traits>

#include "moe_mamba/blocks/convolution.hpp"
#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/norm.hpp"
#include "moe_mamba/blocks/routed_projection.hpp"
#include "moe_mamba/blocks/state_space.hpp"
#include "moe_mamba/layers/mamba_options.hpp"

/// The blocks that a Mamba block is composed of; each of its outer projections is one matrix or experts.
namespace moe_mamba::inline v0_2 {

namespace detail {

template <int In, int Out, int Count, MambaExperts Experts, class Activation>
using MambaExpert = std::conditional_t<Experts.hidden == 0, ExpertLinear<In, Out, Count>,
                                       ExpertMlp<In, Experts.hidden, Out, Count, Activation>>;

/// A projection of Count experts, or of one matrix if Count is 0. Shared is the routing that the block has for all.
template <int In, int Out, int Count, MambaOptions Options, class Activation, class Shared, GateUse Use,
          RoutedProjection Which>
using MambaProjection = std::conditional_t<
    Count <= 0, DenseProjection<Projection<In, Out, Options.projection_bias>>,
    std::conditional_t<Options.experts.separate_routers,
                       SelfRoutedExperts<Options.experts.routing_over(Count),
                                         MambaExpert<In, Out, Count, Options.experts, Activation>, Which>,
                       LayerRoutedExperts<Shared, MambaExpert<In, Out, Count, Options.experts, Activation>, Use>>>;

}  // namespace detail

/// Two projections of one input with concatenated outputs, (T, In) → (T, 2 · Width): x and the gate z.
template <int Width, class ToInput, class ToGate>
struct InputAndGate : LayerOf<ToInput, ToGate> {
  template <class Bind>
  struct Weights {
    constexpr Weights(Bind& bind, const Initializer& initializer)
        : input(bind.template block<ToInput>("input.", initializer)),
          gate(bind.template block<ToGate>("gate.", initializer)) {}
    typename ToInput::template Weights<Bind> input;
    typename ToGate::template Weights<Bind> gate;
  };

  /// Buffers of both.
  template <class OfInput, class OfGate>
  struct Buffers {
    template <class Device>
    constexpr Buffers(Arena& arena, Device& device, Shape shape)
        : input(arena, device, shape), gate(arena, device, shape) {}
    OfInput input;
    OfGate gate;
  };
  template <class C>
  using Saved = Buffers<typename ToInput::template Saved<C>, typename ToGate::template Saved<C>>;
  template <class C>
  using ForwardScratch =
      Buffers<typename ToInput::template ForwardScratch<C>, typename ToGate::template ForwardScratch<C>>;
  template <class C>
  using BackwardScratch =
      Buffers<typename ToInput::template BackwardScratch<C>, typename ToGate::template BackwardScratch<C>>;

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const auto& routed, const Saved<C>& saved,
                      const ForwardScratch<C>& scratch, Input<C> x, MatrixView<C> xz) {
    ToInput::forward(run, w.input, routed, saved.input, scratch.input, x, xz.column_block(0, Width));
    ToGate::forward(run.template after<ToInput>(), w.gate, routed, saved.gate, scratch.gate, x,
                    xz.column_block(Width, Width));
  }

  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const auto& routed,
                       auto& dgates, const Saved<C>& saved, const BackwardScratch<C>& scratch, Input<C> x,
                       MatrixView<C> dxz, MatrixView<C> dx) {
    ToInput::backward(run, w.input, g.input, routed, dgates, saved.input, scratch.input, x, dxz.column_block(0, Width),
                      dx);
    ToGate::backward(run.template after<ToInput>(), w.gate, g.gate, routed, dgates, saved.gate, scratch.gate, x,
                     dxz.column_block(Width, Width), dx, Into::add);
  }
};

/// The blocks of a Mamba block of width D, inner width E, N states per channel and step rank R.
template <int D, MambaOptions Options, class InnerNorm, class ExpertActivation>
struct MambaBlocks {
  static constexpr int N = Options.states, E = Options.inner, R = Options.step_rank;
  static constexpr MambaExperts experts = Options.experts;
  static constexpr bool has_shared_router = experts.most() > 0 && !experts.separate_routers;

  /// The routing of all projections that have experts. Their router is trained through the gates that weight outputs:
  /// those of the output projection alone if it has experts (Zhan et al. 2025), otherwise all.
  using Router = std::conditional_t<has_shared_router, Routing<D, experts.routing_over(experts.most())>, NoRouting>;
  static constexpr GateUse use_before_output =
      has_shared_router && experts.output > 0 ? GateUse::selection : GateUse::weight;

  /// A single projection computes x and z if that is equivalent to two: with one matrix each, or with experts of one
  /// matrix each that one router chooses.
  static constexpr bool is_joint =
      experts.input == experts.gate && (experts.input == 0 || (has_shared_router && experts.hidden == 0));
  template <int Out, int Count, RoutedProjection Which>
  using In = detail::MambaProjection<D, Out, Count, Options, ExpertActivation, Router, use_before_output, Which>;
  using InProjection = std::conditional_t<
      is_joint, In<2 * E, experts.input, RoutedProjection::all>,
      InputAndGate<E, In<E, experts.input, RoutedProjection::input>, In<E, experts.gate, RoutedProjection::gate>>>;
  using Convolution = DepthwiseConvolution<E, Options.taps, Options.convolution_bias>;
  using ScanProjection = Projection<E, R + 2 * N>;
  using StepNorm = typename InnerNorm::template Layer<R>;
  using StateNorm = typename InnerNorm::template Layer<N>;
  using StepProjection = Projection<R, E>;
  using Scan = SelectiveStateSpace<E, N>;
  using OutProjection = detail::MambaProjection<E, D, experts.output, Options, ExpertActivation, Router,
                                                GateUse::weight, RoutedProjection::output>;
  using Sum = LayerOf<Router, InProjection, Convolution, ScanProjection, StepNorm, StateNorm, StateNorm, StepProjection,
                      Scan, OutProjection>;

  /// The parts of (T, R + 2N).
  template <class T>
  struct Parts {
    constexpr explicit Parts(MatrixView<T> all)
        : step(all.column_block(0, R)), b(all.column_block(R, N)), c(all.column_block(R + N, N)) {}
    MatrixView<T> step, b, c;
  };
};

}  // namespace moe_mamba::inline v0_2
