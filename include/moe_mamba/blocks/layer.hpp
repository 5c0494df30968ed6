#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "moe_mamba/blocks/weights.hpp"
#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/runtime/backend.hpp"

/// The interface of a layer to a model, and of a block to a layer.
///
/// A definition such as `Mamba<State<16>>` names a layer; its member template `Layer<Width>` is the layer itself: a
/// type that is never instantiated, with static functions only. A layer, of the library or a user's, has
///
///   Weights<Bind>         its parameters, see blocks/weights.hpp
///   active_parameters     how many of their elements are used per token
///   flops_per_token       floating-point operations of the forward pass, for one token
///   state_size            compute scalars that a sequence carries from call to call
///   report_size           doubles that a forward pass reports; auxiliary_loss(report) is the sum of the losses among
///                         them, and visit_routers(visit, report) calls visit(RouterReport) for each router, those with
///                         a selection bias in the order of these biases among the parameters
///   takes_packed          whether its passes support packed sequences, of shape.length_of(b) rows each; otherwise a
///                         model refuses them (a norm, which works on one row at a time, does not need this member)
///   auxiliary_count       number of auxiliary losses, for models that average them
///   Saved<C>              buffers that the forward pass leaves for the backward pass, constructed from
///                         (Arena&, Device&, Shape); C is the type of activations, compute_t<C> that of sums and of
///                         states. A model's memory is computed for a LoneDevice, so this constructor is constexpr for
///                         it
///   ForwardScratch<C>, BackwardScratch<C>
///                         buffers of one call, likewise; nothing in them is kept between the passes
///   thread_scratch<C>(device, shape, training)
///                         upper bound on the scratch of its operations in bytes per thread, for devices that are
///                         HasThreadScratch; default: the most that any operation may use
///   forward(run, w, saved, x, y)             y = f(x), (T, D) → (T, D), in terms of blocks and operations only
///   backward(run, w, g, saved, x, dy, dx)    dx = dy ∂f/∂x, overwritten; gradients of parameters are added to g
///
/// where w and g are its bound weights and the gradients with respect to them. LayerDefaults and LayerOf (layer_of.hpp)
/// are bases with defaults. A block has the same members, but its passes may have other parameters, and take their
/// scratch memory as they take Saved.
namespace moe_mamba::inline v0_2 {

/// The context of a forward pass: the arguments of a layer besides its weights and buffers. Each layer has its own.
template <class Device, class S, class C>
struct Forward {
  Device& device;
  Shape shape;                    // B sequences: of L steps, or packed (see takes_packed)
  bool training;                  // whether a backward pass follows, for which Saved is kept
  StateView<compute_t<C>> state;  // this layer's running states, in and out; may be null
  double* report;                 // this layer's report
  Arena scratch;                  // memory for the buffers of the call
  /// (T) or null: a token whose target is masked_target does not count in auxiliary losses and statistics.
  const Token* targets = nullptr;

  /// For a layer or block whose states and report lie after those of `Blocks`.
  template <class... Blocks>
  constexpr Forward after() const {
    Forward next = *this;
    next.state = state.at((Blocks::state_size + ...));
    next.report = report + (Blocks::report_size + ...);
    return next;
  }
};

/// The context of a backward pass; Saved is that of the forward pass of the same input.
template <class Device, class S, class C>
struct Backward {
  Device& device;
  Shape shape;
  double auxiliary_weight;         // factor of this layer's auxiliary losses in the loss
  StateView<compute_t<C>> dstate;  // with respect to the final states on entry, the initial ones on return; may be null
  const double* report;            // as left by the forward pass
  Arena scratch;
  const Token* targets = nullptr;  // as in the forward pass
  bool begins = false;             // gradients of parameters with GradientStart::overwrite are overwritten

  /// For a layer or block whose states and report lie after those of `Blocks`.
  template <class... Blocks>
  constexpr Backward after() const {
    Backward next = *this;
    next.dstate = dstate.at((Blocks::state_size + ...));
    next.report = report + (Blocks::report_size + ...);
    return next;
  }
};

/// Called during a backward pass whenever a part of the gradients is complete, from the last part to the first:
/// elements begin … end - 1 do not change any more in this pass. On a CUDA device the work that computes them has then
/// been enqueued in the stream; when a recording is replayed, nothing is called.
struct GradientReady {
  void (*call)(void* context, Index begin, Index end) = nullptr;
  void* context = nullptr;
  void operator()(Index begin, Index end) const {
    if (call != nullptr && begin < end) call(context, begin, end);
  }
};

/// The projections whose experts a router of a Mamba block chooses: one of them, or all that have experts.
enum class RoutedProjection { all, input, gate, output };

/// The report of one router for one call.
struct RouterReport {
  Index layer = 0;  ///< the layer's number in the model, as in its parameters' names
  RoutedProjection projection = RoutedProjection::all;
  double balance_loss = 0;       ///< weighted, as it enters the loss
  double z_loss = 0;             ///< weighted, as it enters the loss
  double entropy = 0;            ///< mean entropy of the router's distribution over a token's experts, in nats
  double dropped = 0;            ///< assignments beyond an expert's capacity
  std::span<const double> load;  ///< tokens assigned to each expert, dropped ones included
  bool has_selection_bias = false;
};

/// Stands for any single device in constant expressions: the sizes of layers' buffers are the same on all of them. (A
/// device in a group may hold only some of the experts, and rows sent by others.)
struct LoneDevice {};

/// No buffers: for layers that save nothing or need no scratch.
struct NoBuffers {
  constexpr NoBuffers() = default;
  template <class Device>
  constexpr NoBuffers(Arena&, Device&, Shape) {}
};

/// One buffer, (T, Columns): for layers that save or need no other.
template <class C, int Columns>
struct RowBuffer {
  template <class Device>
  constexpr RowBuffer(Arena& arena, Device&, Shape shape) : rows(arena.rows<C>(shape.tokens(), Columns)) {}
  MatrixView<C> rows;
};

/// Defaults for members that most layers do not have.
struct LayerDefaults {
  template <class Bind>
  using Weights = NoWeights;
  static constexpr Index state_size = 0;
  static constexpr Index report_size = 0;
  static constexpr bool takes_packed = false;
  static constexpr Index auxiliary_count = 0;
  static constexpr double auxiliary_loss(const double*) { return 0; }
  template <class Visit>
  static constexpr void visit_routers(const Visit&, const double*) {}
  template <class C>
  using Saved = NoBuffers;
  template <class C>
  using ForwardScratch = NoBuffers;
  template <class C>
  using BackwardScratch = NoBuffers;
};

/// Upper bound on the scratch of a layer's passes, in bytes.
template <class Layer, class C, class Device>
std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
  const std::size_t forward = bytes_of<typename Layer::template ForwardScratch<C>>(device, shape);
  return training ? std::max(forward, bytes_of<typename Layer::template BackwardScratch<C>>(device, shape)) : forward;
}

/// Upper bound on the scratch per thread that the operations of a layer, block or norm use, in bytes.
template <class Layer, class C, class Device>
constexpr std::size_t thread_scratch(const Device& device, Shape shape, bool training) {
  if constexpr (!HasThreadScratch<Device>) {
    return 0;
  } else if constexpr (requires { Layer::template thread_scratch<C>(device, shape, training); }) {
    return Layer::template thread_scratch<C>(device, shape, training);
  } else {
    return Device::thread_scratch_bytes;
  }
}

/// The requirements on a layer that can be checked without a device.
template <class T>
concept LayerType = requires(const double* report) {
  typename T::template Weights<DescribeWeights>;
  { T::active_parameters } -> std::convertible_to<Index>;
  { T::flops_per_token } -> std::convertible_to<double>;
  { T::state_size } -> std::convertible_to<Index>;
  { T::report_size } -> std::convertible_to<Index>;
  { T::takes_packed } -> std::convertible_to<bool>;
  { T::auxiliary_loss(report) } -> std::convertible_to<double>;
  typename T::template Saved<float>;
};

/// A norm, as far as this can be checked.
template <class T>
concept NormType = requires {
  typename T::template Weights<DescribeWeights>;
  { T::active_parameters } -> std::convertible_to<Index>;
  typename T::template Saved<float>;
};

/// Bytes of tape (saved activations) that a layer needs for a batch of this shape.
template <class Layer, class C, class Device>
constexpr std::size_t tape_bytes(Device& device, Shape shape) {
  return bytes_of<typename Layer::template Saved<C>>(device, shape);
}

}  // namespace moe_mamba::inline v0_2
