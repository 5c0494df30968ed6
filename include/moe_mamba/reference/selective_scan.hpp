#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/ops/selective_scan.hpp"
#include "moe_mamba/reference/device.hpp"

/// The reference of ops/selective_scan.hpp.
namespace moe_mamba::inline v0_2::reference {

/// The reference allocates its memory on the heap.
template <StorageScalar C>
std::size_t selective_scan_scratch(const Device&, Shape, Index /*channels*/, Index /*states*/) {
  return 0;
}

namespace detail {

/// One channel of one sequence, in double.
template <int States>
struct ScanChannel {
  double a[array_size<States>] = {};  // A
  double bias = 0, d = 0;
  std::vector<double> u, x, delta, z;  // (L); x = delta + bias before softplus, delta = Δ after it
  std::vector<double> b, c;            // (L, N)
  std::vector<double> h;               // (L + 1, N): h[t] is the state before step t
  std::vector<double> decay;           // (L, N): exp(Δ_t A)
  std::vector<double> before_gate;     // (L): Σ_n C_t[n] h_t[n] + d u_t

  /// From a forward or a backward argument struct; the initial state is `initial(n)`.
  template <class Arguments, class Initial>
  ScanChannel(const Arguments& scan, Index sequence, Index channel, const Initial& initial)
      : bias(static_cast<double>(scan.delta_bias[channel])), d(static_cast<double>(scan.d[channel])) {
    for (int n = 0; n < States; ++n) a[n] = -std::exp(static_cast<double>(scan.a_log[channel * States + n]));
    for (int n = 0; n < States; ++n) h.push_back(initial(n));
    const Index length = scan.shape.length;
    for (Index t = 0; t < length; ++t) {
      const Index row = sequence * length + t;
      u.push_back(static_cast<double>(scan.u(row, channel)));
      x.push_back(static_cast<double>(scan.delta(row, channel)) + bias);
      delta.push_back(softplus(x.back()));
      z.push_back(static_cast<double>(scan.z(row, channel)));
      double sum = d * u.back();
      for (int n = 0; n < States; ++n) {
        b.push_back(static_cast<double>(scan.b(row, n)));
        c.push_back(static_cast<double>(scan.c(row, n)));
        decay.push_back(std::exp(delta.back() * a[n]));
        h.push_back(decay.back() * h[at(t, n)] + delta.back() * u.back() * b.back());
        sum += c.back() * h.back();
      }
      before_gate.push_back(sum);
    }
  }

  /// Index into b, c, decay, and into h for the state before step t.
  static std::size_t at(Index t, int n) { return static_cast<std::size_t>(t * States + n); }
};

}  // namespace detail

/// See the contract above. Runs in double whatever C and S are.
template <class C, class S, int States>
void selective_scan(const Device& device, const SelectiveScan<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan(device, part); })) return;
  const Index channels = scan.y.columns, length = scan.shape.length, segments = scan_checkpoints(length);
  for (Index sequence = 0; sequence < scan.shape.batch; ++sequence) {
    for (Index channel = 0; channel < channels; ++channel) {
      auto* const state = scan.state ? scan.state.sequence(sequence) : nullptr;
      const detail::ScanChannel<States> run(scan, sequence, channel, [&](int n) {
        return state == nullptr ? 0.0 : static_cast<double>(state[n * channels + channel]);
      });
      for (Index t = 0; t < length; ++t) {
        const auto step = static_cast<std::size_t>(t);
        scan.y(sequence * length + t, channel) = static_cast<C>(run.before_gate[step] * silu(run.z[step]));
      }
      for (int n = 0; n < States; ++n) {
        for (Index segment = 0; scan.checkpoints != nullptr && segment < segments; ++segment) {
          scan.checkpoints[((sequence * segments + segment) * States + n) * channels + channel] =
              static_cast<compute_t<C>>(run.h[run.at(segment * scan_checkpoint_interval, n)]);
        }
        if (state != nullptr) state[n * channels + channel] = static_cast<compute_t<C>>(run.h[run.at(length, n)]);
      }
    }
  }
}

/// With g_t the gradient with respect to h_t and p_t = Σ_n C_t[n] h_t[n] + d u_t, for each channel:
///
///   dp_t = dy_t silu(z_t)                         dz_t = dy_t p_t silu'(z_t)
///   g_t  = C_t dp_t + exp(Δ_{t+1} A) g_{t+1}      g_{L-1} = C_{L-1} dp_{L-1} + dstate; dstate = exp(Δ_0 A) g_0
///   dC_t = Σ_e dp_t h_t                           dB_t = Σ_e Δ_t u_t g_t
///   du_t = d dp_t + Δ_t Σ_n g_t B_t               dΔ_t = Σ_n g_t (u_t B_t + A exp(Δ_t A) h_{t-1})
///   dA   = Σ_t g_t Δ_t exp(Δ_t A) h_{t-1}         da_log = A dA
///   dd   = Σ_t dp_t u_t                           ddelta_t = dΔ_t sigmoid(delta_t + delta_bias)
///
/// All states are recomputed from the initial one, which is the first checkpoint.
template <class C, class S, int States>
void selective_scan_backward(const Device& device, const SelectiveScanBackward<C, S, States>& scan) {
  if (each_packed_scan(scan, [&](const auto& part) { selective_scan_backward(device, part); })) return;
  const Index channels = scan.du.columns, length = scan.shape.length, segments = scan_checkpoints(length);
  const auto count = [](Index n) { return static_cast<std::size_t>(n); };
  std::vector<double> db(count(scan.shape.tokens() * States)), dc(db.size());
  std::vector<double> da_log(count(channels * States)), dd(count(channels)), dbias(count(channels));
  for (Index sequence = 0; sequence < scan.shape.batch && length > 0; ++sequence) {
    for (Index channel = 0; channel < channels; ++channel) {
      const detail::ScanChannel<States> run(scan, sequence, channel, [&](int n) {
        return static_cast<double>(scan.checkpoints[(sequence * segments * States + n) * channels + channel]);
      });
      auto* const dstate = scan.dstate ? scan.dstate.sequence(sequence) : nullptr;
      double carried[array_size<States>];  // the gradient with respect to h_t propagated from later steps
      for (int n = 0; n < States; ++n) {
        carried[n] = dstate == nullptr ? 0.0 : static_cast<double>(dstate[n * channels + channel]);
      }
      for (Index t = length - 1; t >= 0; --t) {
        const Index row = sequence * length + t;
        const auto step = count(t);
        const double dy = static_cast<double>(scan.dy(row, channel));
        const double delta = run.delta[step], u = run.u[step], dp = dy * silu(run.z[step]);
        double du = run.d * dp, ddelta = 0;
        for (int n = 0; n < States; ++n) {
          const double decay = run.decay[run.at(t, n)], before = run.h[run.at(t, n)], after = run.h[run.at(t + 1, n)];
          const double b = run.b[run.at(t, n)], g = run.c[run.at(t, n)] * dp + carried[n];
          dc[run.at(row, n)] += dp * after;
          db[run.at(row, n)] += delta * u * g;
          du += delta * g * b;
          ddelta += g * (u * b + run.a[n] * decay * before);
          da_log[run.at(channel, n)] += run.a[n] * g * delta * decay * before;
          carried[n] = decay * g;
        }
        ddelta *= sigmoid(run.x[step]);
        dd[count(channel)] += dp * u;
        dbias[count(channel)] += ddelta;
        scan.du(row, channel) = static_cast<C>(du);
        scan.ddelta(row, channel) = static_cast<C>(ddelta);
        scan.dz(row, channel) = static_cast<C>(dy * run.before_gate[step] * silu_derivative(run.z[step]));
      }
      for (int n = 0; n < States && dstate != nullptr; ++n)
        dstate[n * channels + channel] = static_cast<compute_t<C>>(carried[n]);
    }
  }
  const auto add = [](auto& sum, double value) { sum = static_cast<compute_t<C>>(static_cast<double>(sum) + value); };
  for (Index row = 0; row < scan.shape.tokens(); ++row) {
    for (int n = 0; n < States; ++n) {
      scan.db(row, n) = static_cast<C>(db[count(row * States + n)]);
      scan.dc(row, n) = static_cast<C>(dc[count(row * States + n)]);
    }
  }
  for (Index channel = 0; channel < channels; ++channel) {
    for (Index n = 0; n < States; ++n) add(scan.da_log[channel * States + n], da_log[count(channel * States + n)]);
    add(scan.dd[channel], dd[count(channel)]);
    add(scan.ddelta_bias[channel], dbias[count(channel)]);
  }
}

}  // namespace moe_mamba::inline v0_2::reference
