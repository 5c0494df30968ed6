#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/norm.hpp"
#include "moe_mamba/core/static_check.hpp"
#include "moe_mamba/ops/elementwise.hpp"

/// Stages (residual blocks and norms), of which the body of a model consists. A stage updates the residual stream, (T,
/// D), in place; it has the same compile-time members as a layer, and binds its own weights and buffers. The stream is
/// in the compute type, compute_t<C>, whatever the type C of the layers' activations is.
namespace moe_mamba::inline v0_2 {

/// The type of a whole model: LanguageModel<…> or SequenceModel<…>.
template <class T>
concept ModelDefinition = requires {
  typename T::Body;
  T::parameters;
  T::width;
};

}  // namespace moe_mamba::inline v0_2

namespace moe_mamba::inline v0_2::detail {

template <class Definition>
struct WholeModel {
  static_assert(ModelDefinition<Definition>,
                "a definition must be a LanguageModel<...> or a SequenceModel<...>, with the layers in its body: "
                "WholeModel<what was given>");
};

template <Index Parameters>
struct NumberOfParameters {
  static_assert(Parameters < most_counted,
                "a model must have fewer than 2^60 parameters, and this definition has as many or more");
};

/// Calls `visit` for every parameter of a layer or norm, with its offset in the model and `prefix` before its name.
template <class Layer, class Visit>
constexpr void visit_named(const Visit& visit, Index& offset, const ParameterName& prefix) {
  for (Parameter parameter : layer_parameters<Layer>) {
    parameter.name = ParameterName(prefix).append(parameter.name.view());
    parameter.offset += offset;
    visit(parameter);
  }
  offset += parameters_of<Layer>;
}

/// The extent of a stage in each of a model's blocks of memory.
struct Extent {
  Index parameters = 0;
  Index state = 0;
  Index report = 0;
  std::size_t tape = 0;
};

/// The state of a forward pass between stages.
template <class Device, class S, class C>
struct ForwardPass {
  Forward<Device, S, C> run;  // of the next stage
  const S* parameters;        // of the next stage
  Arena tape;                 // for its Saved

  constexpr ForwardPass advanced(const Extent& extent) const {
    ForwardPass next = *this;
    next.run.state = run.state.at(extent.state);
    next.run.report += extent.report;
    next.parameters += extent.parameters;
    next.tape = tape.advanced(extent.tape);
    return next;
  }
};

/// The state of a backward pass between stages.
template <class Device, class S, class C>
struct BackwardPass {
  Backward<Device, S, C> run;
  const S* parameters;
  compute_t<C>* gradients;
  Arena tape;
  GradientReady ready = {};
  Index first = 0;  // the index of the next stage's first parameter

  /// The gradients of the next stage's `count` parameters are complete.
  void finish(Index count) const { ready(first, first + count); }

  constexpr BackwardPass advanced(const Extent& extent) const {
    BackwardPass next = *this;
    next.run.dstate = run.dstate.at(extent.state);
    next.run.report += extent.report;
    next.parameters += extent.parameters;
    next.gradients += extent.parameters;
    next.first += extent.parameters;
    next.tape = tape.advanced(extent.tape);
    return next;
  }
};

/// "layers.<number><part>"
constexpr ParameterName layer_prefix(Index number, std::string_view part) {
  return ParameterName("layers.").append(number).append(part);
}

/// The residual stream between stages: x + pending, a deferred addition that is fused into the next norm. Null data:
/// nothing is pending.
template <class C>
struct Stream {
  MatrixView<compute_t<C>> x;
  MatrixView<const C> pending;
};

/// The gradient with respect to the residual stream, and a copy in the type of activations; null data: not available.
template <class C>
struct StreamGradient {
  MatrixView<compute_t<C>> dx;
  MatrixView<const C> rounded;
};

/// y = Norm(stream), after the pending addition; x is also copied to `kept`, if that has data.
template <class Norm, class Device, class S, class C>
void norm_of_stream(Forward<Device, S, C> run, const auto& w, const typename Norm::template Saved<C>& saved,
                    Stream<C>& stream, MatrixView<compute_t<C>> kept, MatrixView<C> y) {
  using T = compute_t<C>;
  const Joined<T, C> joined{stream.pending, stream.x, kept};
  if constexpr (requires { Norm::forward_joined(run, w, saved, joined, y); }) {
    Norm::forward_joined(run, w, saved, joined, y);
  } else {
    if (stream.pending.data != nullptr) add(run.device, stream.pending, stream.x);
    if (kept.data != nullptr) copy(run.device, stream.x, kept);
    Norm::forward(run, w, saved, MatrixView<const T>(stream.x), y);
  }
  stream.pending = {};
}

/// x + Layer(Norm(x))
template <int D, class Norm, class Layer>
struct ResidualStage {
  static constexpr Index layers = 1, branches = 1;
  static constexpr Index auxiliary_count = Layer::auxiliary_count;
  static constexpr Index parameter_count =
      static_cast<Index>(layer_parameters<Norm>.size() + layer_parameters<Layer>.size());
  static constexpr Index parameters = parameters_of<Norm> + parameters_of<Layer>;
  static constexpr Index active_parameters = Norm::active_parameters + Layer::active_parameters;
  static constexpr double flops_per_token = Layer::flops_per_token;
  static constexpr Index state_size = Layer::state_size;
  static constexpr Index report_size = Layer::report_size;
  static constexpr bool takes_packed = Layer::takes_packed;

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit, Index& offset, Index& layer) {
    visit_named<Norm>(visit, offset, layer_prefix(layer, ".norm."));
    visit_named<Layer>(visit, offset, layer_prefix(layer, ".mixer."));
    ++layer;
  }

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report, Index& layer) {
    Layer::visit_routers(
        [&](RouterReport router) {
          router.layer = layer;
          visit(router);
        },
        report);
    ++layer;
  }
  static constexpr double auxiliary_loss(const double* report) { return Layer::auxiliary_loss(report); }

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : norm(bind.template block<Norm>("norm.")), layer(bind.template block<Layer>("mixer.")) {}
    typename Norm::template Weights<Bind> norm;
    typename Layer::template Weights<Bind> layer;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : x(arena.rows<compute_t<C>>(shape.tokens(), D)),
          norm(arena, device, shape),
          normed(arena.rows<C>(shape.tokens(), D)),
          layer(arena, device, shape) {}
    MatrixView<compute_t<C>> x;  // (T, D): the stream before the stage
    typename Norm::template Saved<C> norm;
    MatrixView<C> normed;  // (T, D): the layer's input
    typename Layer::template Saved<C> layer;
  };

  template <class C, class Device>
  static constexpr std::size_t tape_bytes(Device& device, Shape shape) {
    return bytes_of<Saved<C>>(device, shape);
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return bytes_of<Scratch<C>>(device, shape) + (training ? 0 : tape_bytes<C>(device, shape)) +
           moe_mamba::scratch_bytes<Layer, C>(device, shape, training);
  }

  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return LayerOf<Norm, Layer>::template thread_scratch<C>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(ForwardPass<Device, S, C> pass, Stream<C>& stream) {
    auto& run = pass.run;
    // The pending rows are in the scratch shared by all stages, which this layer overwrites.
    const Scratch<C> scratch(run.scratch, run.device, run.shape);
    const Saved<C> saved(run.training ? pass.tape : run.scratch, run.device, run.shape);
    const auto w = bind_weights<ResidualStage>(pass.parameters);
    norm_of_stream<Norm>(run, w.norm, saved.norm, stream, run.training ? saved.x : MatrixView<compute_t<C>>{},
                         saved.normed);
    Layer::forward(run, w.layer, saved.layer, MatrixView<const C>(saved.normed), scratch.rows);
    stream.pending = scratch.rows;
  }

  /// The gradient with respect to the stream after the stage on entry, before it on return.
  template <class Device, class S, class C>
  static void backward(BackwardPass<Device, S, C> pass, StreamGradient<C>& stream) {
    using T = compute_t<C>;
    auto& run = pass.run;
    const Scratch<C> scratch(run.scratch, run.device, run.shape);
    const Saved<C> saved(pass.tape, run.device, run.shape);
    const auto w = bind_weights<ResidualStage>(pass.parameters);
    const auto g = bind_weights<ResidualStage>(pass.gradients);
    MatrixView<const C> dy;
    if constexpr (std::is_same_v<C, T>) {
      dy = stream.dx;
    } else {
      if (stream.rounded.data == nullptr) copy(run.device, stream.dx, scratch.dy);
      dy = scratch.dy;  // in the scratch shared by all stages
    }
    Layer::backward(run, w.layer, g.layer, saved.layer, MatrixView<const C>(saved.normed), dy, scratch.rows);
    const MatrixView<const T> x = saved.x;
    const MatrixView<const C> rows = scratch.rows;
    if constexpr (!std::is_same_v<C, T> &&
                  requires { Norm::backward(run, w.norm, g.norm, saved.norm, x, rows, stream.dx, scratch.dy); }) {
      Norm::backward(run, w.norm, g.norm, saved.norm, x, rows, stream.dx, scratch.dy);
      stream.rounded = scratch.dy;
    } else {
      Norm::backward(run, w.norm, g.norm, saved.norm, x, rows, stream.dx);
      stream.rounded = {};
    }
    pass.finish(parameters);
  }

 private:
  template <class C>
  struct Scratch {
    template <class Device>
    constexpr Scratch(Arena& arena, Device&, Shape shape)
        : rows(arena.rows<C>(shape.tokens(), D)),
          dy(std::is_same_v<C, compute_t<C>> ? MatrixView<C>{} : arena.rows<C>(shape.tokens(), D)) {}
    MatrixView<C> rows;  // (T, D): the layer's output, or the gradient w.r.t. its input
    MatrixView<C> dy;    // (T, D): the gradient w.r.t. its output, if the stream's is of another type
  };
};

/// x = Norm(x)
template <int D, class Norm>
struct NormStage {
  static constexpr Index layers = 1, branches = 0, auxiliary_count = 0;
  static constexpr Index parameter_count = static_cast<Index>(layer_parameters<Norm>.size());
  static constexpr Index parameters = parameters_of<Norm>;
  static constexpr Index active_parameters = Norm::active_parameters;
  static constexpr double flops_per_token = 0;
  static constexpr Index state_size = 0;
  static constexpr Index report_size = 0;
  static constexpr bool takes_packed = true;

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit, Index& offset, Index& layer) {
    visit_named<Norm>(visit, offset, layer_prefix(layer, ".norm."));
    ++layer;
  }
  template <class Visit>
  static void visit_routers(const Visit&, const double*, Index& layer) {
    ++layer;
  }
  static constexpr double auxiliary_loss(const double*) { return 0; }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device& device, Shape shape)
        : x(arena.rows<compute_t<C>>(shape.tokens(), D)), norm(arena, device, shape) {}
    MatrixView<compute_t<C>> x;  // (T, D)
    typename Norm::template Saved<C> norm;
  };

  template <class C, class Device>
  static constexpr std::size_t tape_bytes(Device& device, Shape shape) {
    return bytes_of<Saved<C>>(device, shape);
  }

  /// Saved in inference, or dy of the backward pass, which is no larger.
  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool) {
    return tape_bytes<C>(device, shape);
  }

  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return moe_mamba::thread_scratch<Norm, C>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(ForwardPass<Device, S, C> pass, Stream<C>& stream) {
    auto& run = pass.run;
    if (stream.pending.data != nullptr) add(run.device, stream.pending, stream.x);
    stream.pending = {};
    const Saved<C> saved(run.training ? pass.tape : run.scratch, run.device, run.shape);
    copy(run.device, stream.x, saved.x);
    Norm::forward(run, bind_weights<Norm>(pass.parameters), saved.norm, MatrixView<const compute_t<C>>(saved.x),
                  stream.x);
  }

  template <class Device, class S, class C>
  static void backward(BackwardPass<Device, S, C> pass, StreamGradient<C>& stream) {
    using T = compute_t<C>;
    auto& run = pass.run;
    const Saved<C> saved(pass.tape, run.device, run.shape);
    const auto dy = run.scratch.template rows<T>(run.shape.tokens(), D);
    copy(run.device, stream.dx, dy);
    fill(run.device, T(0), stream.dx);
    Norm::backward(run, bind_weights<Norm>(pass.parameters), bind_weights<Norm>(pass.gradients), saved.norm,
                   MatrixView<const T>(saved.x), MatrixView<const T>(dy), stream.dx);
    stream.rounded = {};
    pass.finish(parameters);
  }
};

}  // namespace moe_mamba::inline v0_2::detail
