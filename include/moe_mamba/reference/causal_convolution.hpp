#pragma once

#include <cstddef>
#include <vector>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/causal_convolution.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/causal_convolution.hpp.
namespace moe_mamba::inline v0_2::reference {

namespace detail {

/// One channel of one sequence with its initial state in front, in double: element t + k is what tap k of step t reads.
template <int Taps, class Arguments, class C>
std::vector<double> convolution_inputs(const Arguments& convolution, const C* initial, Index sequence, Index channel) {
  const Index channels = convolution.x.columns, length = convolution.shape.length;
  std::vector<double> inputs;
  for (Index j = 0; j < Taps - 1; ++j) {
    inputs.push_back(initial == nullptr ? 0.0 : static_cast<double>(initial[j * channels + channel]));
  }
  for (Index t = 0; t < length; ++t) {
    inputs.push_back(static_cast<double>(convolution.x(sequence * length + t, channel)));
  }
  return inputs;
}

/// The argument of SiLU at step t.
template <int Taps, class Arguments>
double before_activation(const Arguments& convolution, const std::vector<double>& inputs, Index t, Index channel) {
  double sum = convolution.bias == nullptr ? 0.0 : static_cast<double>(convolution.bias[channel]);
  for (Index k = 0; k < Taps; ++k) {
    sum += static_cast<double>(convolution.weight[channel * Taps + k]) * inputs[static_cast<std::size_t>(t + k)];
  }
  return sum;
}

}  // namespace detail

/// See the contract above. Runs in double whatever C and S are.
template <class C, class S, int Taps>
void causal_convolution(const Device& device, const CausalConvolution<C, S, Taps>& convolution) {
  if (each_packed_run(convolution, [&](const auto& part) { causal_convolution(device, part); })) return;
  const Index channels = convolution.y.columns, length = convolution.shape.length;
  for (Index sequence = 0; sequence < convolution.shape.batch; ++sequence) {
    auto* const state = convolution.state ? convolution.state.sequence(sequence) : nullptr;
    for (Index channel = 0; channel < channels; ++channel) {
      const auto inputs = detail::convolution_inputs<Taps>(convolution, state, sequence, channel);
      for (Index t = 0; t < length; ++t) {
        convolution.y(sequence * length + t, channel) =
            static_cast<C>(silu(detail::before_activation<Taps>(convolution, inputs, t, channel)));
      }
      for (Index j = 0; j < Taps - 1; ++j) {
        if (convolution.saved_state != nullptr) {
          convolution.saved_state[(sequence * (Taps - 1) + j) * channels + channel] =
              static_cast<compute_t<C>>(inputs[static_cast<std::size_t>(j)]);
        }
        if (state != nullptr) {
          state[j * channels + channel] = static_cast<compute_t<C>>(inputs[static_cast<std::size_t>(length + j)]);
        }
      }
    }
  }
}

/// With s_t the argument of SiLU at step t and v the inputs with the initial state in front (tap k of step t reads v[t
/// + k]):
///
///   ds_t = dy_t silu'(s_t)     dweight[k] = Σ_t ds_t v[t + k]     dbias = Σ_t ds_t
///   dv[t + k] gets weight[k] ds_t, and its last K - 1 elements get dstate; the first K - 1 are the new dstate
template <class C, class S, int Taps>
void causal_convolution_backward(const Device& device, const CausalConvolutionBackward<C, S, Taps>& convolution) {
  if (each_packed_run(convolution, [&](const auto& part) { causal_convolution_backward(device, part); })) return;
  const Index channels = convolution.dx.columns, length = convolution.shape.length;
  const auto count = [](Index n) { return static_cast<std::size_t>(n); };
  std::vector<double> dweight(count(channels * Taps)), dbias(count(channels));
  for (Index sequence = 0; sequence < convolution.shape.batch; ++sequence) {
    const auto* const initial = convolution.saved_state + sequence * (Taps - 1) * channels;
    auto* const dstate = convolution.dstate ? convolution.dstate.sequence(sequence) : nullptr;
    for (Index channel = 0; channel < channels; ++channel) {
      const auto v = detail::convolution_inputs<Taps>(convolution, initial, sequence, channel);
      std::vector<double> dv(v.size());
      for (Index t = 0; t < length; ++t) {
        const double s = detail::before_activation<Taps>(convolution, v, t, channel);
        const double ds = static_cast<double>(convolution.dy(sequence * length + t, channel)) * silu_derivative(s);
        for (Index k = 0; k < Taps; ++k) {
          dweight[count(channel * Taps + k)] += ds * v[count(t + k)];
          dv[count(t + k)] += static_cast<double>(convolution.weight[channel * Taps + k]) * ds;
        }
        dbias[count(channel)] += ds;
      }
      for (Index j = 0; j < Taps - 1 && dstate != nullptr; ++j) {
        dv[count(length + j)] += static_cast<double>(dstate[j * channels + channel]);
      }
      for (Index t = 0; t < length; ++t) {
        convolution.dx(sequence * length + t, channel) = static_cast<C>(dv[count(t + Taps - 1)]);
      }
      for (Index j = 0; j < Taps - 1 && dstate != nullptr; ++j) {
        dstate[j * channels + channel] = static_cast<compute_t<C>>(dv[count(j)]);
      }
    }
  }
  const auto add = [](auto& sum, double value) { sum = static_cast<compute_t<C>>(static_cast<double>(sum) + value); };
  for (Index channel = 0; channel < channels; ++channel) {
    for (Index k = 0; k < Taps; ++k) add(convolution.dweight[channel * Taps + k], dweight[count(channel * Taps + k)]);
    if (convolution.dbias != nullptr) add(convolution.dbias[channel], dbias[count(channel)]);
  }
}

}  // namespace moe_mamba::inline v0_2::reference
