#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include "layers/naive.hpp"

/// A second implementation of the Mamba block, as the other layers in naive.hpp.
namespace naive {

/// Experts of a Mamba block's projections: their numbers, 0 for none; hidden 0: experts of one matrix.
struct MambaExperts {
  Index input = 0, gate = 0, output = 0, hidden = 0;
  bool separate = false;  // one router per projection
  Moe routing = {};       // without the number of experts

  bool any() const { return input + gate + output > 0; }
};

/// The Mamba block of inner width E, N states per channel, K taps and step rank R.
struct Mamba {
  Index E, N, K, R;
  Norm inner = {NormKind::none, 0};  // of δ, B and C
  bool projection_bias = false, convolution_bias = true;
  MambaExperts experts = {};
};

inline Matrix side_by_side(const Matrix& a, const Matrix& b) {
  Matrix both(a.rows, a.columns + b.columns);
  for (Index t = 0; t < a.rows; ++t) {
    for (Index i = 0; i < a.columns; ++i) both(t, i) = a(t, i);
    for (Index i = 0; i < b.columns; ++i) both(t, a.columns + i) = b(t, i);
  }
  return both;
}

/// The sum of the outputs of a token's experts, weighted by their gates or not.
inline Matrix expert_product(const MambaExperts& experts, Index count, Run& run, const std::string& prefix,
                             const Choice& shared, const Matrix& x, Index out, bool weighted) {
  Moe routing = experts.routing;
  routing.experts = count;
  const Choice choice = experts.separate ? route(routing, run, prefix + "router.", x) : shared;
  const Index D = x.columns, H = experts.hidden;
  const double* weight = H == 0 ? run.weights(prefix + "weight") : nullptr;
  const double* up = H > 0 ? run.weights(prefix + "up.weight") : nullptr;
  const double* down = H > 0 ? run.weights(prefix + "down.weight") : nullptr;
  const Index up_size = (is_gated(routing.activation) ? 2 : 1) * H * D;
  Matrix y(x.rows, out);
  for (Index t = 0; t < x.rows; ++t) {
    const double* from = &x.values[at(t * D)];
    for (const auto& [e, gate] : choice[at(t)]) {
      Vector row(at(out));
      if (H > 0) {
        row = feed_forward(routing.activation, H, run, up + e * up_size, down + e * out * H, from, D, out);
      } else {
        for (Index o = 0; o < out; ++o) {
          for (Index i = 0; i < D; ++i) row[at(o)] += weight[(e * out + o) * D + i] * from[i];
        }
      }
      for (Index o = 0; o < out; ++o) y(t, o) += (weighted ? gate : 1) * row[at(o)];
    }
  }
  return y;
}

inline Matrix mamba(const Mamba& sizes, Run& run, const std::string& prefix, const Matrix& u) {
  const Index E = sizes.E, N = sizes.N, K = sizes.K, R = sizes.R;
  const auto weight = [&](const char* name) { return run.weights(prefix + name); };
  const double *taps = weight("conv1d.weight"), *taps_bias = sizes.convolution_bias ? weight("conv1d.bias") : nullptr;
  const double *step = weight("dt_proj.weight"), *step_bias = weight("dt_proj.bias");
  const double *a_log = weight("A_log"), *skip = weight("D");
  const MambaExperts& experts = sizes.experts;
  Choice shared;
  if (experts.any() && !experts.separate) {
    Moe routing = experts.routing;
    routing.experts = std::max({experts.input, experts.gate, experts.output});
    shared = route(routing, run, prefix + "router.", u);
  }
  const auto project = [&](const std::string& name, Index count, const Matrix& from, Index out, bool weighted) {
    return count == 0 ? product(from, run.weights(prefix + name + "weight"), out)
                      : expert_product(experts, count, run, prefix + name, shared, from, out, weighted);
  };
  const bool separate_matrices = experts.separate || experts.hidden > 0 || experts.input != experts.gate;
  const bool weighted = experts.separate || experts.output == 0;
  Matrix xz(u.rows, 2 * E);
  if (experts.input + experts.gate > 0 && separate_matrices) {
    const Matrix input = project("in_proj.input.", experts.input, u, E, weighted);
    xz = side_by_side(input, project("in_proj.gate.", experts.gate, u, E, weighted));
  } else {
    xz = project("in_proj.", experts.input, u, 2 * E, weighted);
  }
  if (sizes.projection_bias) xz = with_bias(xz, weight("in_proj.bias"));

  Matrix x(run.tokens(), E);
  for (Index b = 0; b < run.batch; ++b) {
    double* state = run.states[at(b)].data() + run.state_position;  // (K - 1, E)
    // The sequence, preceded by the inputs before it.
    const auto input = [&](Index t, Index e) { return t < 0 ? state[(K - 1 + t) * E + e] : xz(b * run.length + t, e); };
    for (Index t = 0; t < run.length; ++t) {
      for (Index e = 0; e < E; ++e) {
        double s = taps_bias == nullptr ? 0 : taps_bias[e];
        for (Index k = 0; k < K; ++k) s += taps[e * K + k] * input(t - (K - 1) + k, e);
        x(b * run.length + t, e) = silu(s);
      }
    }
    Vector last;
    for (Index k = 0; k < K - 1; ++k) {
      for (Index e = 0; e < E; ++e) last.push_back(input(run.length - (K - 1) + k, e));
    }
    std::copy(last.begin(), last.end(), state);
  }

  const Matrix projected = product(x, weight("x_proj.weight"), R + 2 * N);
  const Matrix low = norm(sizes.inner, run.weights, prefix + "dt_norm.", columns(projected, 0, R));  // δ
  const Matrix b = norm(sizes.inner, run.weights, prefix + "b_norm.", columns(projected, R, N));
  const Matrix c = norm(sizes.inner, run.weights, prefix + "c_norm.", columns(projected, R + N, N));
  Matrix y(run.tokens(), E);
  for (Index i = 0; i < run.batch; ++i) {
    double* state = run.states[at(i)].data() + run.state_position + (K - 1) * E;  // (N, E)
    for (Index row = i * run.length; row < (i + 1) * run.length; ++row) {
      for (Index e = 0; e < E; ++e) {
        double delta = step_bias[e];
        for (Index r = 0; r < R; ++r) delta += step[e * R + r] * low(row, r);
        delta = std::log(1 + std::exp(delta));
        double read = skip[e] * x(row, e);
        for (Index n = 0; n < N; ++n) {
          double& h = state[n * E + e];
          h = std::exp(-std::exp(a_log[e * N + n]) * delta) * h + delta * x(row, e) * b(row, n);
          read += c(row, n) * h;
        }
        y(row, e) = read * silu(xz(row, E + e));
      }
    }
  }
  run.state_position += (K - 1) * E + N * E;
  const Matrix out = project("out_proj.", experts.output, y, u.columns, true);
  return sizes.projection_bias ? with_bias(out, weight("out_proj.bias")) : out;
}

}  // namespace naive
