#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/model/stage.hpp"

/// Stages in sequence, and repeated.
namespace moe_mamba::inline v0_2::detail {

/// A sequence of stages.
template <class... Stages>
struct StageList {
  static constexpr Index layers = capped_sum({Stages::layers...});
  static constexpr Index branches = capped_sum({Stages::branches...});
  static constexpr Index auxiliary_count = capped_sum({Stages::auxiliary_count...});
  static constexpr Index parameter_count = capped_sum({Stages::parameter_count...});
  static constexpr Index parameters = capped_sum({Stages::parameters...});
  static constexpr Index active_parameters = capped_sum({Stages::active_parameters...});
  static constexpr double flops_per_token = (0.0 + ... + Stages::flops_per_token);
  static constexpr Index state_size = capped_sum({Stages::state_size...});
  static constexpr Index report_size = capped_sum({Stages::report_size...});
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

  template <class C, class Device>
  static constexpr std::size_t tape_bytes([[maybe_unused]] Device& device, [[maybe_unused]] Shape shape) {
    return (std::size_t{0} + ... + Stages::template tape_bytes<C>(device, shape));
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return std::max({std::size_t{0}, Stages::template scratch_bytes<C>(device, shape, training)...});
  }

  template <class C>
  static std::size_t thread_scratch(const auto& device, [[maybe_unused]] Shape shape, [[maybe_unused]] bool training) {
    return std::max({std::size_t{0}, Stages::template thread_scratch<C>(device, shape, training)...});
  }

  template <class Device, class S, class C>
  static void forward(ForwardPass<Device, S, C> pass, Stream<C>& stream) {
    Extent at;
    (
        [&] {
          Stages::forward(pass.advanced(at), stream);
          at = sum(at, extent<Stages, C>(pass.run.device, pass.run.shape));
        }(),
        ...);
  }

  template <class Device, class S, class C>
  static void backward(BackwardPass<Device, S, C> pass, StreamGradient<C>& stream) {
    Extent at{parameters, state_size, report_size, tape_bytes<C>(pass.run.device, pass.run.shape)};
    // An assignment evaluates its right side first, so this fold goes from the last stage to the first.
    (void)([&] {
      at = difference(at, extent<Stages, C>(pass.run.device, pass.run.shape));
      Stages::backward(pass.advanced(at), stream);
      return Done{};
    }() = ... = Done{});
  }

 private:
  struct Done {
    constexpr Done operator=(Done) const { return {}; }
  };

  template <class Stage, class C, class Device>
  static constexpr Extent extent(Device& device, Shape shape) {
    return {Stage::parameters, Stage::state_size, Stage::report_size, Stage::template tape_bytes<C>(device, shape)};
  }
  static constexpr Extent sum(Extent a, Extent b) {
    return {a.parameters + b.parameters, a.state + b.state, a.report + b.report, a.tape + b.tape};
  }
  static constexpr Extent difference(Extent a, Extent b) {
    return {a.parameters - b.parameters, a.state - b.state, a.report - b.report, a.tape - b.tape};
  }
};

/// The same stages repeated Times times, each time with their own parameters. Compiled once, looped over at run time.
template <int Times, class Body>
struct RepeatStage {
  static constexpr Index layers = capped_product({Times, Body::layers});
  static constexpr Index branches = capped_product({Times, Body::branches});
  static constexpr Index auxiliary_count = capped_product({Times, Body::auxiliary_count});
  static constexpr Index parameter_count = capped_product({Times, Body::parameter_count});
  static constexpr Index parameters = capped_product({Times, Body::parameters});
  static constexpr Index active_parameters = capped_product({Times, Body::active_parameters});
  static constexpr double flops_per_token = Times * Body::flops_per_token;
  static constexpr Index state_size = capped_product({Times, Body::state_size});
  static constexpr Index report_size = capped_product({Times, Body::report_size});
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

  template <class C, class Device>
  static constexpr std::size_t tape_bytes(Device& device, Shape shape) {
    return Times * Body::template tape_bytes<C>(device, shape);
  }

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return Body::template scratch_bytes<C>(device, shape, training);
  }

  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return Body::template thread_scratch<C>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(ForwardPass<Device, S, C> pass, Stream<C>& stream) {
    for (Index time = 0; time < Times; ++time) Body::forward(at<C>(time, pass), stream);
  }

  template <class Device, class S, class C>
  static void backward(BackwardPass<Device, S, C> pass, StreamGradient<C>& stream) {
    for (Index time = Times; time-- > 0;) Body::backward(at<C>(time, pass), stream);
  }

 private:
  /// The state of a pass before repetition `time`.
  template <class C, class Pass>
  static constexpr Pass at(Index time, const Pass& pass) {
    return pass.advanced(
        {time * Body::parameters, time * Body::state_size, time * Body::report_size,
         static_cast<std::size_t>(time) * Body::template tape_bytes<C>(pass.run.device, pass.run.shape)});
  }
};

}  // namespace moe_mamba::inline v0_2::detail
