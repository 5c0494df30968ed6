#pragma once

#include <algorithm>
#include <utility>

#include "moe_mamba/cpu/channels.hpp"
#include "moe_mamba/cpu/device.hpp"
#include "moe_mamba/cpu/exponential.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"

/// The short causal convolution on the CPU. The lanes of a packet are neighbouring channels, and the inner loop runs
/// over time: taps, bias and the last inputs stay in registers, each input is read once, and SiLU is applied before the
/// store.
///
/// Results depend neither on the number of threads nor, in the forward pass, on how a sequence is divided into chunks.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// Channels per task: whole cache lines of every row.
template <ComputeScalar C>
inline constexpr Index convolution_task_channels = std::max<Index>(lanes<Packet<C>>, 32);

/// Steps per segment. The gradients of the parameters are summed within each segment before the segments are added, so
/// rounding errors grow with the length of a segment plus the number of segments, not with their product.
inline constexpr Index convolution_segment = 64;

/// How many rows ahead loops prefetch; the stride of rows defeats the hardware prefetcher.
inline constexpr Index convolution_rows_ahead = 8;

/// weights[k] becomes tap k of every lane's channel.
template <PacketLike P, std::size_t Taps, StorageScalar S>
[[gnu::always_inline]] inline void load_taps(const S* weight, Index count, P (&weights)[Taps]) {
  using C = scalar_of<P>;
  constexpr Index taps = Taps;
  alignas(64) C columns[Taps][lanes<P>] = {};
  for (Index lane = 0; lane < count; ++lane) {
    for (Index k = 0; k < taps; ++k) columns[k][lane] = static_cast<C>(weight[lane * taps + k]);
  }
  unroll<Taps>([&](auto k) { weights[k] = load<P>(columns[k]); });
}

/// bias + Σ_k weights[k] inputs[k]
template <PacketLike P, std::size_t Taps>
[[gnu::always_inline]] inline P convolve(const P& bias, const P (&weights)[Taps], const P (&inputs)[Taps]) {
  P sum = bias;
  unroll<Taps>([&](auto k) { sum = fma(weights[k], inputs[k], sum); });
  return sum;
}

/// Moves everything one slot towards the front; the last slot keeps its value.
template <class P, std::size_t Taps>
[[gnu::always_inline]] inline void shift(P (&values)[Taps]) {
  unroll<Taps - 1>([&](auto k) { values[k] = values[k + 1]; });
}

/// The forward pass of one block of channels of one sequence.
template <PacketLike P, class C, class S, int Taps, class Lanes>
void convolve_block(const CausalConvolution<C, S, Taps>& convolution, Index sequence, Index channel,
                    const Lanes& lane) {
  const Index channels = convolution.y.columns, length = convolution.shape.length, row = sequence * length;
  C* const state = convolution.state ? convolution.state.sequence(sequence) + channel : nullptr;
  C* const saved = convolution.saved_state == nullptr
                       ? nullptr
                       : convolution.saved_state + sequence * (Taps - 1) * channels + channel;
  const Index last = convolution.shape.tokens() - 1;
  const P bias = convolution.bias == nullptr ? P(0) : lane.load_parameters(convolution.bias + channel);
  P weights[array_size<Taps>], inputs[array_size<Taps>];
  load_taps(convolution.weight + channel * Taps, std::min(lanes<P>, channels - channel), weights);
  // Slot K - 1 is for the step's own input; the K - 1 before it are the running state.
  inputs[0] = P(0);
  unroll<Taps - 1>([&](auto j) {
    inputs[j] = state == nullptr ? P(0) : lane.load_channels(state + j * channels);
    if (saved != nullptr) lane.store_channels(saved + j * channels, inputs[j]);
  });
  for (Index t = row; t < row + length; ++t) {
    const Index ahead = std::min(t + convolution_rows_ahead, last);
    prefetch<false>(convolution.x.row(ahead) + channel);
    prefetch<true>(convolution.y.row(ahead) + channel);
    inputs[Taps - 1] = lane.load_channels(convolution.x.row(t) + channel);
    lane.store_channels(convolution.y.row(t) + channel, silu(convolve(bias, weights, inputs)));
    shift(inputs);
  }
  if (state == nullptr) return;
  unroll<Taps - 1>([&](auto j) { lane.store_channels(state + j * channels, inputs[j]); });
}

/// The backward pass of one block of channels of all sequences. Time runs forward: ds of step t goes to the gradients
/// of the K inputs it read, of which the oldest is then complete.
template <PacketLike P, class C, class S, int Taps, class Lanes>
void convolve_block_backward(const CausalConvolutionBackward<C, S, Taps>& convolution, Index channel,
                             const Lanes& lane) {
  const Index channels = convolution.dx.columns, length = convolution.shape.length;
  const Index count = std::min(lanes<P>, channels - channel), last = convolution.shape.tokens() - 1;
  const P bias = convolution.bias == nullptr ? P(0) : lane.load_parameters(convolution.bias + channel);
  P weights[array_size<Taps>], dweights[array_size<Taps>], dbias = 0;
  load_taps(convolution.weight + channel * Taps, count, weights);
  unroll<Taps>([&](auto k) { dweights[k] = P(0); });
  for (Index sequence = 0; sequence < convolution.shape.batch; ++sequence) {
    const Index row = sequence * length;
    C* const dstate = convolution.dstate ? convolution.dstate.sequence(sequence) + channel : nullptr;
    const C* const saved = convolution.saved_state + sequence * (Taps - 1) * channels + channel;
    P inputs[array_size<Taps>], gradients[array_size<Taps>], final_gradients[array_size<Taps>], sums[array_size<Taps>],
        sum = 0;
    unroll<Taps>([&](auto k) { inputs[k] = gradients[k] = final_gradients[k] = sums[k] = P(0); });
    const auto end_segment = [&] {
      unroll<Taps>([&](auto k) { dweights[k] += std::exchange(sums[k], P(0)); });
      dbias += std::exchange(sum, P(0));
    };
    unroll<Taps - 1>([&](auto j) {
      inputs[j] = lane.load_channels(saved + j * channels);
      if (dstate != nullptr) final_gradients[j] = lane.load_channels(dstate + j * channels);
    });
    // Stores the gradient of input i of the sequence; the initial state counts as the inputs before 0.
    const auto store_gradient = [&](Index i, const P& gradient) {
      if (i >= 0) {
        lane.store_channels(convolution.dx.row(row + i) + channel, gradient);
      } else if (dstate != nullptr) {
        lane.store_channels(dstate + (i + Taps - 1) * channels, gradient);
      }
    };
    for (Index t = 0; t < length; ++t) {
      if (t % convolution_segment == 0) end_segment();
      const Index ahead = std::min(row + t + convolution_rows_ahead, last);
      prefetch<false>(convolution.x.row(ahead) + channel);
      prefetch<false>(convolution.dy.row(ahead) + channel);
      inputs[Taps - 1] = lane.load_channels(convolution.x.row(row + t) + channel);
      const P dy = lane.load_channels(convolution.dy.row(row + t) + channel);
      const P ds = dy * silu_with_derivative(convolve(bias, weights, inputs)).derivative;
      sum += ds;
      unroll<Taps>([&](auto k) {
        sums[k] = fma(ds, inputs[k], sums[k]);
        gradients[k] = fma(ds, weights[k], gradients[k]);
      });
      store_gradient(t - (Taps - 1), gradients[0]);
      shift(gradients);
      gradients[Taps - 1] = P(0);
      shift(inputs);
    }
    unroll<Taps - 1>([&](auto j) { store_gradient(length - (Taps - 1) + j, gradients[j] + final_gradients[j]); });
    end_segment();
  }
  if (convolution.dbias != nullptr) {
    lane.store_channels(convolution.dbias + channel, lane.load_channels(convolution.dbias + channel) + dbias);
  }
  unroll<Taps>([&](auto k) {
    alignas(64) C values[lanes<P>];
    store(values, dweights[k]);
    for (Index i = 0; i < count; ++i) convolution.dweight[(channel + i) * Taps + k] += values[i];
  });
}

/// Calls body(channel, lanes) for each block of task `group`.
template <PacketLike P, class Body>
void each_convolution_block(Index group, Index channels, const Body& body) {
  const Index first = group * convolution_task_channels<scalar_of<P>>;
  const Index end = std::min(channels, first + convolution_task_channels<scalar_of<P>>);
  for (Index channel = first; channel < end; channel += lanes<P>) {
    with_channel_lanes<P>(channel, channels, [&](auto lane) { body(channel, lane); });
  }
}

}  // namespace detail

/// See ops/causal_convolution.hpp. saved_state may be null if no backward pass follows. Nothing is allocated.
template <class C, class S, int Taps>
void causal_convolution(Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  if (each_packed_run(convolution, [&](const auto& part) { causal_convolution(device, part); })) return;
  static_assert(Taps >= 1, "causal_convolution: Convolution must be at least 1");
  using P = Packet<C>;
  const Index channels = convolution.y.columns;
  const Index groups = (channels + detail::convolution_task_channels<C> - 1) / detail::convolution_task_channels<C>;
  device.parallel(convolution.shape.batch * groups, [&](Index task, int) {
    detail::each_convolution_block<P>(task % groups, channels, [&](Index channel, auto lane) {
      detail::convolve_block<P>(convolution, task / groups, channel, lane);
    });
  });
}

/// See ops/causal_convolution.hpp. Nothing is allocated.
template <class C, class S, int Taps>
void causal_convolution_backward(Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution) {
  if (each_packed_run(convolution, [&](const auto& part) { causal_convolution_backward(device, part); })) return;
  static_assert(Taps >= 1, "causal_convolution: Convolution must be at least 1");
  using P = Packet<C>;
  const Index channels = convolution.dx.columns;
  const Index groups = (channels + detail::convolution_task_channels<C> - 1) / detail::convolution_task_channels<C>;
  device.parallel(groups, [&](Index group, int) {
    detail::each_convolution_block<P>(group, channels, [&](Index channel, auto lane) {
      detail::convolve_block_backward<P>(convolution, channel, lane);
    });
  });
}

}  // namespace moe_mamba::inline v0_2::cpu
