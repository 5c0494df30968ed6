#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "layers/finite_differences.hpp"
#include "layers/naive.hpp"
#include "layers/naive_attention.hpp"
#include "layers/naive_mamba.hpp"
#include "moe_mamba/blocks/layer.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

/// A single layer with guarded memory.
namespace test {

using moe_mamba::Arena;
using moe_mamba::MatrixView;
using moe_mamba::Shape;
using moe_mamba::StateView;

/// Memory filled with NaNs, with a guard after it that detects writes past the end.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes) : bytes_(bytes), storage_(bytes + 2 * guard + Arena::alignment, mark) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data()) + guard;
    first_ = guard + (Arena::alignment - address % Arena::alignment) % Arena::alignment;
  }
  Arena arena() { return Arena(storage_.data() + first_); }
  bool intact() const {
    const auto is_mark = [](std::byte byte) { return byte == mark; };
    return std::all_of(storage_.begin(), storage_.begin() + static_cast<std::ptrdiff_t>(first_), is_mark) &&
           std::all_of(storage_.begin() + static_cast<std::ptrdiff_t>(first_ + bytes_), storage_.end(), is_mark);
  }

 private:
  static constexpr std::byte mark{0xff};  // eight of them are a NaN, as four are
  static constexpr std::size_t guard = 4096;
  std::size_t bytes_, first_ = 0;
  std::vector<std::byte> storage_;
};

/// The weight of auxiliary losses in the gradients of a single layer.
inline constexpr double auxiliary_weight = 0.5;

/// A layer with parameters, running states and gradients, called as a stage would call it.
template <class Layer, class S, class Device>
class LayerRun {
 public:
  using C = moe_mamba::compute_t<S>;

  LayerRun(Device& device, Shape shape, Index width, const std::vector<double>& values,
           const std::vector<double>& initial_states)
      : parameters(converted<S>(values)),
        states(converted<C>(initial_states)),
        report(static_cast<std::size_t>(Layer::report_size + 1), std::nan("")),
        gradients(values.size()),
        device_(device),
        shape_(shape),
        width_(width),
        tape_(moe_mamba::tape_bytes<Layer, C>(device, shape)),
        scratch_(scratch_size()) {}

  std::vector<C> forward(const std::vector<C>& x) {
    auto y = poison<C>(shape_.tokens() * width_);
    x_ = x;
    Layer::forward(
        moe_mamba::Forward<Device, S, C>{device_, shape_, true, StateView<C>{states.data(), Layer::state_size},
                                         report.data(), scratch_.arena()},
        moe_mamba::bind_weights<Layer>(std::as_const(parameters).data()), saved(), view(x_),
        moe_mamba::matrix(y.data(), shape_.tokens(), width_));
    check_guards();
    return y;
  }

  /// The backward pass of the last forward(). Norms add to `dx`, layers overwrite it.
  std::vector<C> backward(const std::vector<C>& dy, std::vector<C> dx, std::vector<C>& dstates) {
    GuardedMemory scratch(scratch_size());
    Layer::backward(moe_mamba::Backward<Device, S, C>{device_, shape_, auxiliary_weight,
                                                      StateView<C>{dstates.data(), Layer::state_size}, report.data(),
                                                      scratch.arena()},
                    moe_mamba::bind_weights<Layer>(std::as_const(parameters).data()),
                    moe_mamba::bind_weights<Layer>(gradients.data()), saved(), view(x_), view(dy),
                    moe_mamba::matrix(dx.data(), shape_.tokens(), width_));
    check_guards();
    CHECK(scratch.intact());
    return dx;
  }

  std::vector<S> parameters;
  std::vector<C> states;
  std::vector<double> report;
  std::vector<C> gradients;

 private:
  std::size_t scratch_size() const { return moe_mamba::scratch_bytes<Layer, C>(device_, shape_, true); }
  typename Layer::template Saved<C> saved() {
    Arena arena = tape_.arena();
    return typename Layer::template Saved<C>(arena, device_, shape_);
  }
  MatrixView<const C> view(const std::vector<C>& x) const {
    return moe_mamba::matrix(x.data(), shape_.tokens(), width_);
  }
  void check_guards() const {
    CHECK(tape_.intact());
    CHECK(scratch_.intact());
  }

  Device& device_;
  Shape shape_;
  Index width_;
  std::vector<C> x_;
  GuardedMemory tape_, scratch_;
};

/// The results of a naive layer: outputs, final states, auxiliary losses.
struct NaiveOutcome {
  naive::Matrix y;
  naive::Run run;
};

/// The part of LayerComparison that does not depend on the layer's type, compiled once.
class NaiveLayerComparison {
 public:
  using NaiveLayer = std::function<naive::Matrix(naive::Run&, const naive::Matrix&)>;

  NaiveLayerComparison(const NaiveLayerComparison&) = delete;
  NaiveLayerComparison& operator=(const NaiveLayerComparison&) = delete;

  NaiveOutcome expected() const {
    naive::Run run{weights_, shape_.batch, shape_.length, {}};
    for (Index b = 0; b < shape_.batch; ++b) {
      run.states.emplace_back(states.begin() + b * state_size_, states.begin() + (b + 1) * state_size_);
    }
    naive::Matrix input(shape_.tokens(), width_);
    input.values = x;
    naive::Matrix y = naive_layer_(run, input);
    return {y, run};
  }

  std::vector<double> parameters, x, states;

 protected:
  NaiveLayerComparison(Shape shape, Index width, NaiveLayer naive_layer, std::uint64_t seed,
                       std::span<const moe_mamba::Parameter> layout, Index parameter_count, Index state_size)
      : parameters(uniform<double>(parameter_count, seed, -0.7, 0.7)),
        x(uniform<double>(shape.tokens() * width, seed + 1)),
        states(uniform<double>(shape.batch * state_size, seed + 2)),
        shape_(shape),
        width_(width),
        dy_(uniform<double>(shape.tokens() * width, seed + 3)),
        dstates_(uniform<double>(shape.batch * state_size, seed + 4)),
        state_size_(state_size),
        layout_(layout),
        naive_layer_(std::move(naive_layer)) {
    for (const auto& parameter : layout_) {
      weights_.add(std::string(parameter.name.view()), parameters.data() + parameter.offset);
    }
  }

  /// Checks that a layer's outputs, states and report are within `bound` of the naive ones.
  void compare(const std::vector<double>& y, const std::vector<double>& final_states,
               const std::vector<moe_mamba::RouterReport>& reports, double bound) const {
    const NaiveOutcome naive = expected();
    CHECK((weights_.all_used() || shape_.tokens() == 0));
    CHECK(relative_error(y, naive.y.values) <= bound);
    std::vector<double> naive_states;
    for (const auto& state : naive.run.states) naive_states.insert(naive_states.end(), state.begin(), state.end());
    CHECK(relative_error(final_states, naive_states) <= bound);
    REQUIRE(reports.size() == naive.run.routers.size());
    for (std::size_t router = 0; router < reports.size(); ++router) {
      const moe_mamba::RouterReport& report = reports[router];
      const naive::Router& other = naive.run.routers[router];
      CHECK(std::abs(report.balance_loss - other.balance_loss) <= bound);
      CHECK(std::abs(report.z_loss - other.z_loss) <= bound);
      CHECK(std::abs(report.entropy - other.entropy) <= bound * (1 + other.entropy));
      CHECK(report.dropped == other.dropped);
      CHECK(std::vector<double>(report.load.begin(), report.load.end()) == other.load);
    }
  }

  /// Checks that gradients, which started from one for parameters and from `dx_at_start` for the input, agree with
  /// finite differences of the naive layer: of Σ dy·y + Σ dstate·state, plus the weighted auxiliary losses.
  void compare_gradients(const std::vector<double>& gradients, const std::vector<double>& dx, double dx_at_start,
                         const std::vector<double>& dstates, Index stride) {
    for (const auto& parameter : layout_) {
      INFO("gradient w.r.t. " << parameter.name.view());
      const auto first = static_cast<std::size_t>(parameter.offset);
      check_tensor({parameters.data() + first, static_cast<std::size_t>(parameter.size())}, gradients.data() + first, 1,
                   stride);
    }
    INFO("gradient w.r.t. the input");
    check_tensor(x, dx.data(), dx_at_start, stride);
    if (state_size_ > 0) {
      INFO("gradient w.r.t. the initial states");
      check_tensor(states, dstates.data(), 0, stride);
    }
  }

  Shape shape_;
  Index width_;
  std::vector<double> dy_, dstates_;

 private:
  double objective(std::uint64_t& decisions) const {
    const NaiveOutcome outcome = expected();
    decisions = outcome.run.decisions;
    double value = 0;
    for (std::size_t i = 0; i < dy_.size(); ++i) value += dy_[i] * outcome.y.values[i];
    std::size_t i = 0;
    for (const auto& state : outcome.run.states) {
      for (const double number : state) value += dstates_[i++] * number;
    }
    for (const auto& router : outcome.run.routers) {
      value += auxiliary_weight * (router.balance_loss + router.z_loss);
    }
    return value;
  }

  void check_tensor(std::span<double> values, const double* gradient, double at_start, Index stride) {
    check_gradient(values, gradient, at_start, stride, [&](std::uint64_t& decisions) { return objective(decisions); });
  }

  Index state_size_;
  std::span<const moe_mamba::Parameter> layout_;
  NaiveLayer naive_layer_;
  naive::Weights weights_;
};

/// A layer and its naive counterpart on the same random numbers.
///
/// `naive_layer(run, x)` is the counterpart; it finds the parameters in run.weights under their own names.
template <class Layer>
class LayerComparison : public NaiveLayerComparison {
 public:
  LayerComparison(Shape shape, Index width, NaiveLayer naive_layer, std::uint64_t seed)
      : NaiveLayerComparison(shape, width, std::move(naive_layer), seed, moe_mamba::layer_parameters<Layer>,
                             moe_mamba::parameters_of<Layer>, Layer::state_size) {}

  /// Checks that outputs, states and report of the layer, computed in S, are within `bound` of the naive ones.
  template <class S, class Device>
  void check_forward(Device& device, double bound) const {
    using C = moe_mamba::compute_t<S>;
    LayerRun<Layer, S, Device> layer(device, shape_, width_, parameters, states);
    const auto y = layer.forward(converted<C>(x));
    std::vector<moe_mamba::RouterReport> reports;
    Layer::visit_routers([&](const moe_mamba::RouterReport& report) { reports.push_back(report); },
                         layer.report.data());
    compare(converted<double>(y), converted<double>(layer.states), reports, bound);
  }

  /// Checks the backward pass in double against finite differences of the naive layer with respect to every `stride`-th
  /// parameter, input and initial state.
  template <class Device>
  void check_backward(Device& device, bool adds_to_dx, Index stride = 1) {
    LayerRun<Layer, double, Device> layer(device, shape_, width_, parameters, states);
    (void)layer.forward(x);
    // Accumulated gradients start from one, overwritten ones as NaN.
    std::fill(layer.gradients.begin(), layer.gradients.end(), 1.0);
    auto dstates = dstates_;
    const auto dx = layer.backward(dy_, std::vector<double>(x.size(), adds_to_dx ? 1.0 : std::nan("")), dstates);
    compare_gradients(layer.gradients, dx, adds_to_dx ? 1 : 0, dstates, stride);
  }
};

}  // namespace test
