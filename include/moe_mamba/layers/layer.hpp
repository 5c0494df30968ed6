#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/layers/parameter.hpp"

/// What a layer is, to the models that are made of it.
///
/// A definition such as `Mamba<State<16>>` says what a layer is; its member template `Layer<Width>` is the layer
/// itself: a type without objects, all of whose functions are static. Inside the library or outside, a layer has
///
///   parameters            std::array of Parameter, laid out by lay_out()
///   active_parameters     how many of their elements a token is multiplied with
///   flops_per_token       floating-point operations of the forward pass, for one token
///   state_size            compute scalars that a sequence carries from call to call
///   report_size           doubles that a forward pass reports; auxiliary_loss(report) adds up what of it is a loss, and
///                         visit_routers(visit, report) shows each router's share to visit(RouterReport)
///   takes_packed          whether its passes know packed sequences, of shape.length_of(b) rows each; a model refuses them
///                         where a layer does not (norms, which look at one row at a time, need not say it)
///   auxiliary_count       how many auxiliary losses there are to be averaged, if they are
///   Saved<C>              buffers that the forward pass leaves for the backward pass: Saved(Arena&, Shape); C is the type
///                         of activations, compute_t<C> that of what is summed or kept from step to step
///   scratch_bytes<C>(device, shape, training)      temporary memory that a call needs at most
///   forward(run, x, y)            y = f(x), (T, D) → (T, D), written in terms of operations only
///   backward(run, x, dy, dx)      dx = dy ∂f/∂x, overwritten; gradients of parameters are added to
///
/// and may derive from LayerDefaults for what it does not have.
namespace moe_mamba {

/// How far a layer or a stage reaches in each of the blocks of memory that a model is given.
struct Extent {
  Index parameters = 0;
  Index state = 0;
  Index report = 0;
  std::size_t tape = 0;
};

/// What a layer's forward pass is given. A value: each layer gets its own, at its own place in every block.
template <class Device, class S, class C>
struct Forward {
  Device& device;
  Shape shape;                    // B sequences: of L steps, or packed (see takes_packed)
  bool training;                  // whether a backward pass follows: whether the tape is kept
  const S* parameters;            // this layer's
  StateView<compute_t<C>> state;  // this layer's running states, in and out; may be null
  double* report;                 // this layer's report
  Arena tape;                     // for Saved
  Arena scratch;                  // for everything that ends with the call
  /// (T) or null: where a target is masked_target, the token does not count in auxiliary losses and statistics.
  const Token* targets = nullptr;

  constexpr Forward advanced(const Extent& extent) const {
    return {device,
            shape,
            training,
            parameters + extent.parameters,
            state.at(extent.state),
            report + extent.report,
            tape.advanced(extent.tape),
            scratch,
            targets};
  }
};

/// What a layer's backward pass is given. The tape is that of the forward pass of the same input.
template <class Device, class S, class C>
struct Backward {
  Device& device;
  Shape shape;
  double auxiliary_weight;  // factor of this layer's auxiliary losses in the loss
  const S* parameters;
  compute_t<C>* gradients;         // of this layer's parameters, added to
  StateView<compute_t<C>> dstate;  // gradient by the final states on entry, by the initial ones on return; may be null
  const double* report;            // as left by the forward pass
  Arena tape;
  Arena scratch;
  const Token* targets = nullptr;  // as in the forward pass
  bool begins = false;             // gradients of parameters marked begun_by_layer are overwritten

  constexpr Backward advanced(const Extent& extent) const {
    return {device,
            shape,
            auxiliary_weight,
            parameters + extent.parameters,
            gradients + extent.parameters,
            dstate.at(extent.state),
            report + extent.report,
            tape.advanced(extent.tape),
            scratch,
            targets,
            begins};
  }
};

/// What one mixture-of-experts layer reports of one call.
struct RouterReport {
  Index layer = 0;               ///< the layer's number in the model, as in its parameters' names
  double balance_loss = 0;       ///< weighted, as it enters the loss
  double z_loss = 0;             ///< weighted, as it enters the loss
  double entropy = 0;            ///< mean entropy of the router's distribution over a token's experts, in nats
  double dropped = 0;            ///< assignments beyond an expert's capacity
  std::span<const double> load;  ///< tokens assigned to each expert, dropped ones included
};

/// No buffers: for layers that save nothing or need no scratch.
struct NoBuffers {
  template <class... Arguments>
  constexpr explicit NoBuffers(Arena&, const Arguments&...) {}
};

/// What most layers do not have.
struct LayerDefaults {
  static constexpr Index state_size = 0;
  static constexpr Index report_size = 0;
  static constexpr bool takes_packed = false;
  static constexpr Index auxiliary_count = 0;
  static constexpr double auxiliary_loss(const double*) { return 0; }
  template <class Visit>
  static constexpr void visit_routers(const Visit&, const double*) {}
  template <class C>
  using Saved = NoBuffers;
};

/// Scratch of a layer whose two passes take the buffers `ForwardScratch` and `BackwardScratch`.
template <class ForwardScratch, class BackwardScratch, class Device>
std::size_t largest_scratch(Device& device, Shape shape, bool training) {
  const std::size_t forward = bytes_of<ForwardScratch>(device, shape);
  return training ? std::max(forward, bytes_of<BackwardScratch>(device, shape)) : forward;
}

/// What an operation over sequences needs at most, where scratch(shape) is what it needs for sequences of one length: it
/// goes through the runs of a batch one after the other.
template <class Scratch>
std::size_t largest_run_scratch(const Shape& shape, const Scratch& scratch) {
  std::size_t most = 0;
  for_sequence_runs(shape, [&](const SequenceRun& part) { most = std::max(most, scratch(part.shape)); });
  return most;
}

/// A layer, as far as it can be told without a device.
template <class T>
concept LayerType = requires(const double* report) {
  { T::parameters.size() } -> std::convertible_to<std::size_t>;
  { T::active_parameters } -> std::convertible_to<Index>;
  { T::flops_per_token } -> std::convertible_to<double>;
  { T::state_size } -> std::convertible_to<Index>;
  { T::report_size } -> std::convertible_to<Index>;
  { T::takes_packed } -> std::convertible_to<bool>;
  { T::auxiliary_loss(report) } -> std::convertible_to<double>;
  typename T::template Saved<float>;
};

namespace detail {

/// Stands where something else than a layer was given, once a check has said so.
struct NoLayer : LayerDefaults {
  static constexpr std::array<Parameter, 0> parameters{};
  static constexpr Index active_parameters = 0;
  static constexpr double flops_per_token = 0;
};

template <class Layer>
struct FinishedLayer {
  static_assert(LayerType<Layer>, "a layer lacks something that layers/layer.hpp asks for: FinishedLayer<layer>");
};

/// The layer, if it is one.
template <class Layer>
struct CheckedLayer {
  static_assert((check<FinishedLayer<Layer>>(), true));
  using type = std::conditional_t<LayerType<Layer>, Layer, NoLayer>;
};

}  // namespace detail

/// A definition of a norm: like that of a layer, and it says so.
template <class T>
concept NormDefinition = requires {
  { T::is_norm } -> std::convertible_to<bool>;
  typename T::template Layer<1>;
};

/// A definition of a layer: its member template Layer<Width> is the layer.
template <class T, int Width>
concept LayerDefinition = requires {
  typename T::template Layer<Width>;
}
&&!NormDefinition<T>;

/// Elements of a layer's parameters.
template <class Layer>
inline constexpr Index parameters_of = total_size(Layer::parameters);

/// Bytes of tape that a layer takes for a batch of this shape.
template <class Layer, class C>
constexpr std::size_t tape_bytes(Shape shape) {
  return bytes_of<typename Layer::template Saved<C>>(shape);
}

}  // namespace moe_mamba
