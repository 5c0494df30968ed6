#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/norm.hpp"
#include "moe_mamba/ops/elementwise.hpp"

/// Stages: what the body of a model is made of. A stage changes the residual stream, (T, D), in place; it has the
/// same compile-time facts as a layer, and its passes take the same `Forward` and `Backward`. The stream is in the compute
/// type, compute_t<C>, whatever the type C of the layers' activations is.
namespace moe_mamba {

/// The type of a whole model: LanguageModel<…> or SequenceModel<…>.
template <class T>
concept ModelDefinition = requires {
  typename T::Body;
  T::parameters;
  T::width;
};

}  // namespace moe_mamba

namespace moe_mamba::detail {

template <class Definition>
struct WholeModel {
  static_assert(ModelDefinition<Definition>,
                "a definition must be a LanguageModel<...> or a SequenceModel<...>, with the layers in its body: "
                "WholeModel<what was given>");
};

/// Shows `visit` every parameter of a layer or norm at its place in the model, its name behind `prefix`.
template <class Layer, class Visit>
constexpr void visit_named(const Visit& visit, Index& offset, const ParameterName& prefix) {
  for (Parameter parameter : Layer::parameters) {
    parameter.name = ParameterName(prefix).append(parameter.name.view());
    parameter.offset += offset;
    visit(parameter);
  }
  offset += parameters_of<Layer>;
}

/// "layers.<number><part>"
constexpr ParameterName layer_prefix(Index number, std::string_view part) {
  return ParameterName("layers.").append(number).append(part);
}

/// The residual stream on its way through the stages: x + pending, which the next norm adds up. Null data: nothing is
/// pending.
template <class C>
struct Stream {
  MatrixView<compute_t<C>> x;
  MatrixView<const C> pending;
};

/// The gradient by the residual stream on its way back, and the same as activations; null data: not to be had.
template <class C>
struct StreamGradient {
  MatrixView<compute_t<C>> dx;
  MatrixView<const C> rounded;
};

/// y = Norm(stream), with nothing pending any more; x is kept as well where `kept` has data.
template <class Norm, class Device, class S, class C>
void norm_of_stream(Forward<Device, S, C> run, Stream<C>& stream, MatrixView<compute_t<C>> kept, MatrixView<C> y) {
  using T = compute_t<C>;
  const Joined<T, C> joined{stream.pending, stream.x, kept};
  if constexpr (requires { Norm::forward_joined(run, joined, y); }) {
    Norm::forward_joined(run, joined, y);
  } else {
    if (stream.pending.data != nullptr) add(run.device, stream.pending, stream.x);
    if (kept.data != nullptr) copy(run.device, stream.x, kept);
    Norm::forward(run, MatrixView<const T>(stream.x), y);
  }
  stream.pending = {};
}

/// x + Layer(Norm(x))
template <int D, class Norm, class Layer>
struct ResidualStage {
  static constexpr Index layers = 1, branches = 1;
  static constexpr Index auxiliary_count = Layer::auxiliary_count;
  static constexpr Index parameter_count = static_cast<Index>(Norm::parameters.size() + Layer::parameters.size());
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

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape)
        : x(matrix(arena.take<compute_t<C>>(shape.tokens() * D), shape.tokens(), Index{D})), norm(arena) {
      arena = norm.advanced(moe_mamba::tape_bytes<Norm, C>(shape));
      normed = matrix(arena.take<C>(shape.tokens() * D), shape.tokens(), Index{D});
      layer = arena;
      arena = layer.advanced(moe_mamba::tape_bytes<Layer, C>(shape));
    }
    MatrixView<compute_t<C>> x;  // (T, D): the stream before the stage
    MatrixView<C> normed;        // (T, D): the layer's input
    Arena norm, layer;
  };

  template <class C>
  static constexpr std::size_t tape_bytes(Shape shape) {
    return bytes_of<Saved<C>>(shape);
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return bytes_of<Scratch<C>>(shape) + (training ? 0 : tape_bytes<C>(shape)) +
           Layer::template scratch_bytes<C>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, Stream<C>& stream) {
    // What is pending lies where the rows of any stage do, which its layer overwrites.
    const Scratch<C> scratch(run.scratch, run.shape);
    const Saved<C> saved(run.training ? run.tape : run.scratch, run.shape);
    run.tape = saved.norm;
    norm_of_stream<Norm>(run, stream, run.training ? saved.x : MatrixView<compute_t<C>>{}, saved.normed);
    auto inner = run.advanced({.parameters = parameters_of<Norm>});
    inner.tape = saved.layer;
    Layer::forward(inner, MatrixView<const C>(saved.normed), scratch.rows);
    stream.pending = scratch.rows;
  }

  /// The gradient by the stream after the stage on entry, before it on return.
  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, StreamGradient<C>& stream) {
    using T = compute_t<C>;
    const Scratch<C> scratch(run.scratch, run.shape);
    const Saved<C> saved(run.tape, run.shape);
    auto inner = run.advanced({.parameters = parameters_of<Norm>});
    inner.tape = saved.layer;
    MatrixView<const C> dy;
    if constexpr (std::is_same_v<C, T>) {
      dy = stream.dx;
    } else {
      if (stream.rounded.data == nullptr) copy(run.device, stream.dx, scratch.dy);
      dy = scratch.dy;  // which lies where that of any stage does
    }
    Layer::backward(inner, MatrixView<const C>(saved.normed), dy, scratch.rows);
    run.tape = saved.norm;
    const MatrixView<const T> x = saved.x;
    const MatrixView<const C> rows = scratch.rows;
    if constexpr (!std::is_same_v<C, T> && requires { Norm::backward(run, x, rows, stream.dx, scratch.dy); }) {
      Norm::backward(run, x, rows, stream.dx, scratch.dy);
      stream.rounded = scratch.dy;
    } else {
      Norm::backward(run, x, rows, stream.dx);
      stream.rounded = {};
    }
  }

 private:
  template <class C>
  struct Scratch {
    constexpr Scratch(Arena& arena, Shape shape)
        : rows(matrix(arena.take<C>(shape.tokens() * D), shape.tokens(), Index{D})) {
      if (!std::is_same_v<C, compute_t<C>>) {
        dy = matrix(arena.take<C>(shape.tokens() * D), shape.tokens(), Index{D});
      }
    }
    MatrixView<C> rows;  // (T, D): the layer's output, or the gradient by its input
    MatrixView<C> dy;    // (T, D): the gradient by its output, where the stream's is of another type
  };
};

/// x = Norm(x)
template <int D, class Norm>
struct NormStage {
  static constexpr Index layers = 1, branches = 0, auxiliary_count = 0;
  static constexpr Index parameter_count = static_cast<Index>(Norm::parameters.size());
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
    constexpr Saved(Arena& arena, Shape shape)
        : x(matrix(arena.take<compute_t<C>>(shape.tokens() * D), shape.tokens(), Index{D})), norm(arena) {
      arena = arena.advanced(moe_mamba::tape_bytes<Norm, C>(shape));
    }
    MatrixView<compute_t<C>> x;  // (T, D)
    Arena norm;
  };

  template <class C>
  static constexpr std::size_t tape_bytes(Shape shape) {
    return bytes_of<Saved<C>>(shape);
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device&, Shape shape, bool training) {
    return training ? bytes_of<Saved<C>>(shape) : tape_bytes<C>(shape);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, Stream<C>& stream) {
    if (stream.pending.data != nullptr) add(run.device, stream.pending, stream.x);
    stream.pending = {};
    const Saved<C> saved(run.training ? run.tape : run.scratch, run.shape);
    copy(run.device, stream.x, saved.x);
    run.tape = saved.norm;
    Norm::forward(run, MatrixView<const compute_t<C>>(saved.x), stream.x);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, StreamGradient<C>& stream) {
    const Saved<C> saved(run.tape, run.shape);
    using T = compute_t<C>;
    const auto dy = matrix(run.scratch.template take<T>(run.shape.tokens() * D), run.shape.tokens(), Index{D});
    copy(run.device, stream.dx, dy);
    fill(run.device, T(0), stream.dx);
    run.tape = saved.norm;
    Norm::backward(run, MatrixView<const T>(saved.x), MatrixView<const T>(dy), stream.dx);
    stream.rounded = {};
  }
};

/// Stages one after the other.
template <class... Stages>
struct StageList {
  static constexpr Index layers = (Index{0} + ... + Stages::layers);
  static constexpr Index branches = (Index{0} + ... + Stages::branches);
  static constexpr Index auxiliary_count = (Index{0} + ... + Stages::auxiliary_count);
  static constexpr Index parameter_count = (Index{0} + ... + Stages::parameter_count);
  static constexpr Index parameters = (Index{0} + ... + Stages::parameters);
  static constexpr Index active_parameters = (Index{0} + ... + Stages::active_parameters);
  static constexpr double flops_per_token = (0.0 + ... + Stages::flops_per_token);
  static constexpr Index state_size = (Index{0} + ... + Stages::state_size);
  static constexpr Index report_size = (Index{0} + ... + Stages::report_size);
  static constexpr bool takes_packed = (true && ... && Stages::takes_packed);

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit, Index& offset, Index& layer) {
    (Stages::visit_parameters(visit, offset, layer), ...);
  }
  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report, Index& layer) {
    ((Stages::visit_routers(visit, report, layer), report += Stages::report_size), ...);
  }
  static constexpr double auxiliary_loss(const double* report) {
    double loss = 0;
    ((loss += Stages::auxiliary_loss(report), report += Stages::report_size), ...);
    return loss;
  }

  template <class C>
  static constexpr std::size_t tape_bytes(Shape shape) {
    return (std::size_t{0} + ... + Stages::template tape_bytes<C>(shape));
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return std::max({std::size_t{0}, Stages::template scratch_bytes<C>(device, shape, training)...});
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, Stream<C>& stream) {
    Extent at;
    (
        [&] {
          Stages::forward(run.advanced(at), stream);
          at = sum(at, extent<Stages, C>(run.shape));
        }(),
        ...);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, StreamGradient<C>& stream) {
    Extent at{parameters, state_size, report_size, tape_bytes<C>(run.shape)};
    // An assignment evaluates its right side first, so this fold goes from the last stage to the first.
    (void)([&] {
      at = difference(at, extent<Stages, C>(run.shape));
      Stages::backward(run.advanced(at), stream);
      return Done{};
    }() = ... = Done{});
  }

 private:
  struct Done {
    constexpr Done operator=(Done) const { return {}; }
  };

  template <class Stage, class C>
  static constexpr Extent extent(Shape shape) {
    return {Stage::parameters, Stage::state_size, Stage::report_size, Stage::template tape_bytes<C>(shape)};
  }
  static constexpr Extent sum(Extent a, Extent b) {
    return {a.parameters + b.parameters, a.state + b.state, a.report + b.report, a.tape + b.tape};
  }
  static constexpr Extent difference(Extent a, Extent b) {
    return {a.parameters - b.parameters, a.state - b.state, a.report - b.report, a.tape - b.tape};
  }
};

/// The same stages Times times, each time with their own parameters. Compiled once, looped over at run time.
template <int Times, class Body>
struct RepeatStage {
  static constexpr Index layers = Times * Body::layers;
  static constexpr Index branches = Times * Body::branches;
  static constexpr Index auxiliary_count = Times * Body::auxiliary_count;
  static constexpr Index parameter_count = Times * Body::parameter_count;
  static constexpr Index parameters = Times * Body::parameters;
  static constexpr Index active_parameters = Times * Body::active_parameters;
  static constexpr double flops_per_token = Times * Body::flops_per_token;
  static constexpr Index state_size = Times * Body::state_size;
  static constexpr Index report_size = Times * Body::report_size;
  static constexpr bool takes_packed = Body::takes_packed;

  template <class Visit>
  static constexpr void visit_parameters(const Visit& visit, Index& offset, Index& layer) {
    for (int time = 0; time < Times; ++time) Body::visit_parameters(visit, offset, layer);
  }
  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report, Index& layer) {
    for (int time = 0; time < Times; ++time) Body::visit_routers(visit, report + time * Body::report_size, layer);
  }
  static constexpr double auxiliary_loss(const double* report) {
    double loss = 0;
    for (int time = 0; time < Times; ++time) loss += Body::auxiliary_loss(report + time * Body::report_size);
    return loss;
  }

  template <class C>
  static constexpr std::size_t tape_bytes(Shape shape) {
    return Times * Body::template tape_bytes<C>(shape);
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return Body::template scratch_bytes<C>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, Stream<C>& stream) {
    for (Index time = 0; time < Times; ++time) Body::forward(run.advanced(extent<C>(time, run.shape)), stream);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, StreamGradient<C>& stream) {
    for (Index time = Times; time-- > 0;) Body::backward(run.advanced(extent<C>(time, run.shape)), stream);
  }

 private:
  template <class C>
  static constexpr Extent extent(Index times, Shape shape) {
    return {times * Body::parameters, times * Body::state_size, times * Body::report_size,
            static_cast<std::size_t>(times) * Body::template tape_bytes<C>(shape)};
  }
};

}  // namespace moe_mamba::detail
