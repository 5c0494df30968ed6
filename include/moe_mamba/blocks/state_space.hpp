#pragma once

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/ops/selective_scan.hpp"

namespace moe_mamba::inline v0_2 {

/// The inputs of a selective scan, or the gradients with respect to them; see ops/selective_scan.hpp.
template <class T>
struct ScanInputs {
  MatrixView<T> u;      // (T, Channels)
  MatrixView<T> delta;  // (T, Channels): before bias and softplus
  MatrixView<T> b, c;   // (T, States)
  MatrixView<T> z;      // (T, Channels): the gate, before SiLU
};

/// The selective state space of Mamba, with the parameters that do not depend on the input: A, D and the bias of Δ.
/// A sequence carries (States, Channels) scalars.
template <int Channels, int States>
struct SelectiveStateSpace : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : dt_bias(bind.vector("dt_proj.bias", Channels, ParameterKind::bias, Initializer::dt_bias())),
          a_log(bind.matrix("A_log", Channels, States, Initializer::s4d_real(), ParameterKind::decay_free)),
          skip(bind.vector("D", Channels, ParameterKind::decay_free, Initializer::ones())) {}
    typename Bind::Vector dt_bias;  // (Channels)
    typename Bind::Matrix a_log;    // (Channels, States)
    typename Bind::Vector skip;     // (Channels)
  };

  static constexpr Index active_parameters = parameters_of<SelectiveStateSpace>;
  /// Per state: Δ·A, exp, ·h, Δx·B, +, ·C, +.
  static constexpr double flops_per_token = 7.0 * States * Channels;
  static constexpr Index state_size = Index{States} * Channels;
  static constexpr bool takes_packed = true;
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape, bool training) {
    return selective_scan_thread_scratch<C, States>(device, training);
  }

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : checkpoints(arena.rows<compute_t<C>>(scan_checkpoints(shape), state_size)) {}
    MatrixView<compute_t<C>> checkpoints;  // (scan_checkpoints(shape), States · Channels), sequence by sequence
  };

  template <class C>
  struct Scratch {
    template <class Device>
    Scratch(Arena& arena, Device& device, Shape shape)
        : scan(arena.block(selective_scan_scratch<C>(device, shape, Index{Channels}, Index{States}))) {}
    Arena scan;
  };

  template <class Device, class S, class C>
  static void forward(const Forward<Device, S, C>& run, const auto& w, const Saved<C>& saved, const Scratch<C>& scratch,
                      const ScanInputs<C>& in, MatrixView<C> y) {
    selective_scan(run.device,
                   SelectiveScan<C, S, States>{.shape = run.shape,
                                               .u = in.u,
                                               .delta = in.delta,
                                               .b = in.b,
                                               .c = in.c,
                                               .z = in.z,
                                               .delta_bias = w.dt_bias,
                                               .a_log = w.a_log.data,
                                               .d = w.skip,
                                               .state = run.state,
                                               .checkpoints = run.training ? saved.checkpoints.data : nullptr,
                                               .y = y,
                                               .scratch = scratch.scan});
  }

  /// The gradients with respect to the inputs are overwritten.
  template <class Device, class S, class C>
  static void backward(const Backward<Device, S, C>& run, const auto& w, const auto& g, const Saved<C>& saved,
                       const Scratch<C>& scratch, const ScanInputs<C>& in, Input<C> dy, const ScanInputs<C>& d) {
    selective_scan_backward(run.device, SelectiveScanBackward<C, S, States>{.shape = run.shape,
                                                                            .u = in.u,
                                                                            .delta = in.delta,
                                                                            .b = in.b,
                                                                            .c = in.c,
                                                                            .z = in.z,
                                                                            .delta_bias = w.dt_bias,
                                                                            .a_log = w.a_log.data,
                                                                            .d = w.skip,
                                                                            .checkpoints = saved.checkpoints.data,
                                                                            .dy = dy,
                                                                            .du = d.u,
                                                                            .ddelta = d.delta,
                                                                            .dz = d.z,
                                                                            .db = d.b,
                                                                            .dc = d.c,
                                                                            .ddelta_bias = g.dt_bias,
                                                                            .da_log = g.a_log.data,
                                                                            .dd = g.skip,
                                                                            .dstate = run.dstate,
                                                                            .scratch = scratch.scan});
  }
};

}  // namespace moe_mamba::inline v0_2
