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

/// What a layer is to a model, and a block to a layer.
///
/// A definition such as `Mamba<State<16>>` names a layer; its member template `Layer<Width>` is the layer itself: a
/// type without objects, all of whose functions are static. Inside the library or outside, a layer has
///
///   Weights<Bind>         its parameters, see blocks/weights.hpp
///   active_parameters     how many of their elements are used for a token
///   flops_per_token       floating-point operations of the forward pass, for one token
///   state_size            compute scalars that a sequence carries from call to call
///   report_size           doubles that a forward pass reports; auxiliary_loss(report) is the sum of the losses among
///                         them, and visit_routers(visit, report) calls visit(RouterReport) for each router, those with
///                         a selection bias in the order of these biases among the parameters
///   takes_packed          whether its passes support packed sequences, of shape.length_of(b) rows each; a model
///                         refuses them where a layer does not (a norm, which looks at one row at a time, need not say)
///   auxiliary_count       number of auxiliary losses, by which a model divides that averages them
///   Saved<C>              buffers that the forward pass leaves for the backward pass, constructed from (Arena&, Device&,
///                         Shape); C is the type of activations, compute_t<C> that of what is summed or kept from step
///                         to step. A model's cost is that on a LoneDevice, so this constructor is constexpr there
///   ForwardScratch<C>, BackwardScratch<C>
///                         buffers of one call, likewise; nothing in them is kept between the passes
///   thread_scratch<C>(device, shape, training)
///                         bytes of scratch that its operations take of each of the device's threads at most, where
///                         device is HasThreadScratch; left out: as many as any operation may
///   forward(run, w, saved, x, y)             y = f(x), (T, D) → (T, D), in terms of blocks and operations only
///   backward(run, w, g, saved, x, dy, dx)    dx = dy ∂f/∂x, overwritten; gradients of parameters are added to g
///
/// where w and g are its bound weights and the gradients with respect to them. LayerDefaults and LayerOf (layer_of.hpp)
/// are bases with what a layer does not say itself. A block has the same members, but passes of its own form, which are
/// given their scratch memory as they are given Saved.
namespace moe_mamba::inline v0_2 {

/// The context of a forward pass: what a layer is given besides its weights and buffers. Each layer has its own.
template <class Device, class S, class C>
struct Forward {
  Device& device;
  Shape shape;                    // B sequences: of L steps, or packed (see takes_packed)
  bool training;                  // whether a backward pass follows, for which Saved is kept
  StateView<compute_t<C>> state;  // this layer's running states, in and out; may be null
  double* report;                 // this layer's report
  Arena scratch;                  // memory for the buffers of the call
  /// (T) or null: where a target is masked_target, the token does not count in auxiliary losses and statistics.
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

/// Called during a backward pass for each part of the gradients that is formed, from the last to the first: elements
/// begin … end - 1 will not change any more in this pass. On a device the work that forms them is in the stream then, and
/// where a recording is replayed, nothing is called.
struct GradientReady {
  void (*call)(void* context, Index begin, Index end) = nullptr;
  void* context = nullptr;
  void operator()(Index begin, Index end) const {
    if (call != nullptr && begin < end) call(context, begin, end);
  }
};

/// Whose experts a router of a Mamba block chooses: those of one projection, or of all that have some.
enum class RoutedProjection { all, input, gate, output };

/// What one router reports of one call.
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

/// Stands for any device that works on its own, where sizes are constants: what layers keep is of the same size on all of
/// those. (One that works with others may hold a part of the experts only, and rows that others sent.)
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

/// What most layers do not have.
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

/// Bytes of scratch that a layer's passes take at most.
template <class Layer, class C, class Device>
std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
  const std::size_t forward = bytes_of<typename Layer::template ForwardScratch<C>>(device, shape);
  return training ? std::max(forward, bytes_of<typename Layer::template BackwardScratch<C>>(device, shape)) : forward;
}

/// Bytes of scratch that the operations of a layer, block or norm take of each of the device's threads at most.
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

/// A norm, as far as that can be told.
template <class T>
concept NormType = requires {
  typename T::template Weights<DescribeWeights>;
  { T::active_parameters } -> std::convertible_to<Index>;
  typename T::template Saved<float>;
};

/// Bytes of tape that a layer takes for a batch of this shape.
template <class Layer, class C, class Device>
constexpr std::size_t tape_bytes(Device& device, Shape shape) {
  return bytes_of<typename Layer::template Saved<C>>(device, shape);
}

}  // namespace moe_mamba::inline v0_2
