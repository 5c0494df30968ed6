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

/// A second implementation of the layers, to compare the library with: plain loops in double over vectors, written from
/// the published formulas, which share only the names and shapes of parameters with the library.
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

/// Parameters by name. Records which were used.
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

/// The report of a mixture of experts.
struct Router {
  double balance_loss = 0, z_loss = 0, entropy = 0, dropped = 0;
  Vector load;
};

/// One call: the batch, the running states, and the results besides the outputs.
struct Run {
  const Weights& weights;
  Index batch, length;
  std::vector<Vector> states;  // one vector per sequence, read and updated
  Index state_position = 0;    // the offset of the next layer's states
  std::vector<Router> routers = {};
  /// A digest of all discrete decisions: signs of the inputs of a ReLU, chosen experts, dropped tokens. Two calls with
  /// equal digests are on the same smooth piece of the function.
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

enum class Activation { relu, squared_relu, gelu, silu, swiglu, geglu };
inline bool is_gated(Activation activation) {
  return activation == Activation::swiglu || activation == Activation::geglu;
}

/// down(f(up(x))), or down(f(gate) · up) with the gate's rows first.
inline Vector feed_forward(Activation activation, Index hidden, Run& run, const double* up, const double* down,
                           const double* x, Index width, Index out) {
  const auto dot = [&](Index row) {
    double total = 0;
    for (Index i = 0; i < width; ++i) total += up[row * width + i] * x[i];
    return total;
  };
  Vector y(at(out));
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
    for (Index i = 0; i < out; ++i) y[at(i)] += down[i * hidden + j] * h;
  }
  return y;
}

inline Matrix mlp(Activation activation, Index hidden, Run& run, const std::string& prefix, const Matrix& x) {
  Matrix y(x.rows, x.columns);
  for (Index t = 0; t < x.rows; ++t) {
    const Vector row =
        feed_forward(activation, hidden, run, run.weights(prefix + "up.weight"), run.weights(prefix + "down.weight"),
                     &x.values[at(t * x.columns)], x.columns, x.columns);
    std::copy(row.begin(), row.end(), &y.values[at(t * x.columns)]);
  }
  return y;
}

/// A mixture of experts. Capacity 0 / 1: no limit.
struct Moe {
  Index experts = 1, top_k = 1, hidden = 1, shared = 0;
  Activation activation = Activation::relu;
  bool renormalise = false;  // gates: a softmax over the chosen, instead of the probabilities themselves
  bool sigmoid = false;      // gates: sigmoids of the logits
  bool normalise = false;    // sigmoids are divided by their sum over the chosen
  double gate_scale = 1;
  bool router_bias = false, selection_bias = false;
  Index capacity_numerator = 0, capacity_denominator = 1;
  bool floor_capacity = false;
  double balance = 0.01, z = 0;
};

/// The experts and gates of a token, best first, without dropped ones.
struct Assignment {
  Index expert;
  double gate;
};
using Choice = std::vector<std::vector<Assignment>>;

inline Choice route(const Moe& config, Run& run, const std::string& prefix, const Matrix& x) {
  const Index E = config.experts, K = config.top_k, T = x.rows;
  Matrix logits = product(x, run.weights(prefix + "weight"), E);
  if (config.router_bias) logits = with_bias(logits, run.weights(prefix + "bias"));
  const double* bias = config.selection_bias ? run.weights(prefix + "selection_bias") : nullptr;
  const bool limited = config.capacity_numerator > 0;
  const double share =
      static_cast<double>(config.capacity_numerator * T * K) / static_cast<double>(config.capacity_denominator * E);
  const Index capacity = static_cast<Index>(config.floor_capacity ? std::floor(share) : std::ceil(share));
  Router report;
  report.load.resize(at(E));
  Vector mean_probability(at(E)), places(at(E));
  double counted = 0;
  for (Index t = 0; t < T; ++t) counted += run.counts(t) ? 1 : 0;
  Choice choice(at(T));
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
      choice[at(t)].push_back({e, gate});
    }
  }
  for (Index e = 0; e < E && counted > 0; ++e) {
    report.balance_loss += config.balance * static_cast<double>(E) *
                           (report.load[at(e)] / (counted * static_cast<double>(K))) * mean_probability[at(e)];
  }
  run.routers.push_back(report);
  return choice;
}

inline Matrix moe(const Moe& config, Run& run, const std::string& prefix, const Matrix& x) {
  const Index F = config.hidden, D = x.columns;
  const Index up_size = (is_gated(config.activation) ? 2 : 1) * F * D;
  const double *up = run.weights(prefix + "experts.up.weight"), *down = run.weights(prefix + "experts.down.weight");
  const Choice choice = route(config, run, prefix + "router.", x);
  Matrix y(x.rows, D);
  for (Index t = 0; t < x.rows; ++t) {
    for (const auto& [e, gate] : choice[at(t)]) {
      const Vector row =
          feed_forward(config.activation, F, run, up + e * up_size, down + e * D * F, &x.values[at(t * D)], D, D);
      for (Index i = 0; i < D; ++i) y(t, i) += gate * row[at(i)];
    }
  }
  if (config.shared == 0) return y;
  return sum(y, mlp(config.activation, config.shared * F, run, prefix + "shared.", x));
}

}  // namespace naive
