#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "moe_mamba/core/scalar.hpp"

/// The layers once more: plain loops in double over vectors, written from the published formulas and sharing nothing
/// with the library but the names and places of parameters. What the library computes is compared with this.
namespace naive {

using moe_mamba::Index;
using Vector = std::vector<double>;

inline std::size_t at(Index index) { return static_cast<std::size_t>(index); }

/// A row-major matrix that owns its elements.
struct Matrix {
  Matrix(Index row_count, Index column_count) : rows(row_count), columns(column_count), values(at(rows * columns)) {}
  double& operator()(Index row, Index column) { return values[at(row * columns + column)]; }
  double operator()(Index row, Index column) const { return values[at(row * columns + column)]; }
  Index rows, columns;
  Vector values;
};

inline Matrix sum(const Matrix& a, const Matrix& b) {
  Matrix c = a;
  for (std::size_t i = 0; i < c.values.size(); ++i) c.values[i] += b.values[i];
  return c;
}

/// Parameters by name. Remembers which were asked for.
class Weights {
 public:
  void add(const std::string& name, const double* values) { places_[name] = values; }
  const double* operator()(const std::string& name) const {
    const auto found = places_.find(name);
    if (found == places_.end()) throw std::logic_error("no parameter " + name);
    asked_.insert(name);
    return found->second;
  }
  bool all_used() const { return asked_.size() == places_.size(); }

 private:
  std::map<std::string, const double*> places_;
  mutable std::set<std::string> asked_;
};

/// What a mixture of experts reports.
struct Router {
  double balance_loss = 0, z_loss = 0, entropy = 0, dropped = 0;
  Vector load;
};

/// One call: the batch, the running states, and what comes out beside the outputs.
struct Run {
  const Weights& weights;
  Index batch, length;
  std::vector<Vector> states;  // one vector a sequence, read and brought up to date
  Index state_position = 0;    // where the next layer's states begin
  std::vector<Router> routers = {};
  /// A digest of every discrete decision on the way: signs of what goes into a ReLU, experts chosen, tokens dropped.
  /// Two calls with equal digests lie on one smooth piece of the function.
  std::uint64_t decisions = 0;
  std::vector<bool> counted = {};  // which tokens count in auxiliary losses and statistics; empty: all

  bool counts(Index token) const { return counted.empty() || counted[static_cast<std::size_t>(token)]; }
  Index tokens() const { return batch * length; }
  void decide(Index what) { decisions = decisions * 0x9E3779B97F4A7C15u + static_cast<std::uint64_t>(what) + 1; }
};

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline double silu(double x) { return x * sigmoid(x); }

/// y = x Wᵀ, W (out, in) row-major.
inline Matrix product(const Matrix& x, const double* weight, Index out) {
  Matrix y(x.rows, out);
  for (Index t = 0; t < x.rows; ++t) {
    for (Index o = 0; o < out; ++o) {
      for (Index i = 0; i < x.columns; ++i) y(t, o) += x(t, i) * weight[o * x.columns + i];
    }
  }
  return y;
}

enum class NormKind { rms, layer, none };
struct Norm {
  NormKind kind = NormKind::rms;
  double epsilon = 1e-5;
  bool gain = true;
};

inline Matrix norm(const Norm& which, const Weights& weights, const std::string& prefix, const Matrix& x) {
  Matrix y = x;
  if (which.kind == NormKind::none) return y;
  const double* gain = which.gain ? weights(prefix + "weight") : nullptr;
  const double* bias = which.kind == NormKind::layer ? weights(prefix + "bias") : nullptr;
  const double width = static_cast<double>(x.columns);
  for (Index t = 0; t < x.rows; ++t) {
    double mean = 0, square = 0;
    for (Index i = 0; i < x.columns && bias != nullptr; ++i) mean += x(t, i) / width;
    for (Index i = 0; i < x.columns; ++i) square += (x(t, i) - mean) * (x(t, i) - mean) / width;
    for (Index i = 0; i < x.columns; ++i) {
      y(t, i) = (x(t, i) - mean) / std::sqrt(square + which.epsilon) * (gain == nullptr ? 1 : gain[i]) +
                (bias == nullptr ? 0 : bias[i]);
    }
  }
  return y;
}

/// The Mamba block of inner width E, N states a channel, K taps and step rank R.
struct Mamba {
  Index E, N, K, R;
  Norm inner = {NormKind::none, 0};  // of δ, B and C
  bool projection_bias = false, convolution_bias = true;
};

/// Columns first … first + count - 1.
inline Matrix columns(const Matrix& x, Index first, Index count) {
  Matrix y(x.rows, count);
  for (Index t = 0; t < x.rows; ++t) {
    for (Index i = 0; i < count; ++i) y(t, i) = x(t, first + i);
  }
  return y;
}

inline Matrix with_bias(Matrix x, const double* bias) {
  for (Index t = 0; t < x.rows; ++t) {
    for (Index i = 0; i < x.columns; ++i) x(t, i) += bias[i];
  }
  return x;
}

inline Matrix mamba(const Mamba& sizes, Run& run, const std::string& prefix, const Matrix& u) {
  const Index E = sizes.E, N = sizes.N, K = sizes.K, R = sizes.R;
  const auto weight = [&](const char* name) { return run.weights(prefix + name); };
  const double *taps = weight("conv1d.weight"), *taps_bias = sizes.convolution_bias ? weight("conv1d.bias") : nullptr;
  const double *step = weight("dt_proj.weight"), *step_bias = weight("dt_proj.bias");
  const double *a_log = weight("A_log"), *skip = weight("D");
  Matrix xz = product(u, weight("in_proj.weight"), 2 * E);
  if (sizes.projection_bias) xz = with_bias(xz, weight("in_proj.bias"));

  Matrix x(run.tokens(), E);
  for (Index b = 0; b < run.batch; ++b) {
    double* state = run.states[at(b)].data() + run.state_position;  // (K - 1, E)
    // The sequence with the inputs before it in front.
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
  const Matrix out = product(y, weight("out_proj.weight"), u.columns);
  return sizes.projection_bias ? with_bias(out, weight("out_proj.bias")) : out;
}

enum class Activation { relu, squared_relu, gelu, silu, swiglu, geglu };
inline bool is_gated(Activation activation) {
  return activation == Activation::swiglu || activation == Activation::geglu;
}

/// down(f(up(x))), or down(f(gate) · up) with the gate's rows first.
inline Vector feed_forward(Activation activation, Index hidden, Run& run, const double* up, const double* down,
                           const double* x, Index width) {
  const auto dot = [&](Index row) {
    double total = 0;
    for (Index i = 0; i < width; ++i) total += up[row * width + i] * x[i];
    return total;
  };
  Vector y(at(width));
  for (Index j = 0; j < hidden; ++j) {
    double h = dot(j);
    switch (activation) {
      case Activation::relu:
        run.decide(h > 0);
        if (h <= 0) h = 0;
        break;
      case Activation::squared_relu:
        run.decide(h > 0);
        h = h <= 0 ? 0 : h * h;
        break;
      case Activation::silu:
      case Activation::swiglu:
        h = silu(h);
        break;
      case Activation::gelu:
      case Activation::geglu:
        h = h / 2 * (1 + std::erf(h / std::sqrt(2.0)));
        break;
    }
    if (is_gated(activation)) h *= dot(hidden + j);
    for (Index i = 0; i < width; ++i) y[at(i)] += down[i * hidden + j] * h;
  }
  return y;
}

inline Matrix mlp(Activation activation, Index hidden, Run& run, const std::string& prefix, const Matrix& x) {
  Matrix y(x.rows, x.columns);
  for (Index t = 0; t < x.rows; ++t) {
    const Vector row = feed_forward(activation, hidden, run, run.weights(prefix + "up.weight"),
                                    run.weights(prefix + "down.weight"), &x.values[at(t * x.columns)], x.columns);
    std::copy(row.begin(), row.end(), &y.values[at(t * x.columns)]);
  }
  return y;
}

/// A mixture of experts. Capacity 0 / 1 is none.
struct Moe {
  Index experts = 1, top_k = 1, hidden = 1, shared = 0;
  Activation activation = Activation::relu;
  bool renormalise = false;  // gates: a softmax over the chosen, instead of the probabilities themselves
  bool sigmoid = false;      // gates: sigmoids of the logits
  bool normalise = false;    // sigmoids are divided by their sum over the chosen
  double gate_scale = 1;
  bool router_bias = false, selection_bias = false;
  Index capacity_numerator = 0, capacity_denominator = 1;
  double balance = 0.01, z = 0;
};

inline Matrix moe(const Moe& config, Run& run, const std::string& prefix, const Matrix& x) {
  const Index E = config.experts, K = config.top_k, F = config.hidden, D = x.columns, T = x.rows;
  const Index up_size = (is_gated(config.activation) ? 2 : 1) * F * D;
  const double *up = run.weights(prefix + "experts.up.weight"), *down = run.weights(prefix + "experts.down.weight");
  Matrix logits = product(x, run.weights(prefix + "router.weight"), E);
  if (config.router_bias) logits = with_bias(logits, run.weights(prefix + "router.bias"));
  const double* bias = config.selection_bias ? run.weights(prefix + "router.selection_bias") : nullptr;
  const bool limited = config.capacity_numerator > 0;
  const Index capacity = static_cast<Index>(std::ceil(static_cast<double>(config.capacity_numerator * T * K) /
                                                      static_cast<double>(config.capacity_denominator * E)));
  Router report;
  report.load.resize(at(E));
  Vector mean_probability(at(E)), places(at(E));
  double counted = 0;
  for (Index t = 0; t < T; ++t) counted += run.counts(t) ? 1 : 0;
  Matrix y(T, D);
  for (Index t = 0; t < T; ++t) {
    double total = 0;
    for (Index e = 0; e < E; ++e) total += std::exp(logits(t, e));
    Vector p;
    for (Index e = 0; e < E; ++e) p.push_back(std::exp(logits(t, e)) / total);
    for (Index e = 0; e < E; ++e) {
      if (!run.counts(t)) continue;
      mean_probability[at(e)] += p[at(e)] / counted;
      report.entropy -= p[at(e)] * std::log(p[at(e)]) / counted;
    }
    if (run.counts(t)) report.z_loss += config.z * std::log(total) * std::log(total) / counted;

    // Sigmoids are in the order of probabilities, but not when biases are added.
    const auto score = [&](Index e) { return config.sigmoid ? sigmoid(logits(t, e)) : p[at(e)]; };
    const auto order = [&](Index e) { return bias == nullptr ? p[at(e)] : score(e) + bias[e]; };
    std::vector<Index> chosen;
    double chosen_score = 0;
    for (Index k = 0; k < K; ++k) {
      Index best = -1;
      for (Index e = 0; e < E; ++e) {
        bool taken = false;
        for (const Index other : chosen) taken = taken || other == e;
        if (!taken && (best < 0 || order(e) > order(best))) best = e;
      }
      chosen.push_back(best);
      chosen_score += score(best);
    }
    for (const Index e : chosen) {
      const bool dropped = limited && places[at(e)] >= static_cast<double>(capacity);
      places[at(e)] += 1;
      report.load[at(e)] += run.counts(t) ? 1 : 0;
      run.decide(2 * e + dropped);
      if (dropped) {
        report.dropped += 1;
        continue;
      }
      const double gate = config.gate_scale * score(e) / (config.renormalise || config.normalise ? chosen_score : 1.0);
      const Vector row =
          feed_forward(config.activation, F, run, up + e * up_size, down + e * D * F, &x.values[at(t * D)], D);
      for (Index i = 0; i < D; ++i) y(t, i) += gate * row[at(i)];
    }
  }
  for (Index e = 0; e < E && counted > 0; ++e) {
    report.balance_loss += config.balance * static_cast<double>(E) *
                           (report.load[at(e)] / (counted * static_cast<double>(K))) * mean_probability[at(e)];
  }
  run.routers.push_back(report);
  if (config.shared == 0) return y;
  return sum(y, mlp(config.activation, config.shared * F, run, prefix + "shared.", x));
}

}  // namespace naive
