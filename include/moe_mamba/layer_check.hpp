#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <locale>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/model/initialise.hpp"
#include "moe_mamba/runtime/memory.hpp"

/// Checks that a layer meets a model's expectations, for tests of user-defined layers: check_layer<MyLayer, 8>(device).
namespace moe_mamba::inline v0_2 {

/// The errors of a layer.
struct LayerCheck {
  double gradients = 0;  ///< relative to finite differences, as a fraction of the gradient's largest element
  std::string furthest;  ///< the gradient with the largest error: a parameter's name, "input" or "initial states"
  /// Outputs and final states of packed sequences against those of each alone; 0 without takes_packed.
  double packing = 0;
  double chunks = 0;  ///< the same for sequences read in two calls against one

  /// NaN does not pass. Finite differences in double are accurate to 1e-8; the other two differ by rounding only.
  bool passed() const { return gradients <= 1e-6 && packing <= 1e-10 && chunks <= 1e-10; }

  /// A summary in one line.
  std::string text() const {
    std::ostringstream line;
    line.imbue(std::locale::classic());
    line << (passed() ? "passed" : "FAILED") << ": gradients differ by " << gradients << " (" << furthest
         << "), packed sequences by " << packing << ", chunks by " << chunks;
    return line.str();
  }
};

namespace detail {

/// A layer or norm on its own, in double, between inputs and the gradients of Σ dy y + Σ dfinal final + auxiliary
/// losses.
template <class Definition, int Width, class Device>
class LayerBench {
 public:
  using Layer = typename Definition::template Layer<Width>;
  static_assert(Device::Memory::on_host, "check_layer() reads and writes the device's memory: it must be the host's");

  LayerBench(Device& device, Shape shape, Seed seed)
      : device_(device),
        shape_(shape),
        tape_(tape_bytes<Layer, double>(device, shape)),
        scratch_(scratch_bytes<Layer, double>(device, shape, true)),
        report_(static_cast<std::size_t>(Layer::report_size)) {
    Random random(seed, 1000);
    const auto draw = [&](Index count) {
      std::vector<double> values(static_cast<std::size_t>(count));
      for (double& value : values) value = random.uniform(-1, 1);
      return values;
    };
    parameters = draw(parameters_of<Layer>);
    for (Index number = 0; const Parameter& parameter : layer_parameters<Layer>) {
      std::vector<double> values(static_cast<std::size_t>(parameter.size()));
      initialise(parameter, seed, number++, 1, values.data());
      for (std::size_t i = 0; i < values.size(); ++i) {  // a little off, as zeros and ones would hide mistakes
        double& value = parameters[static_cast<std::size_t>(parameter.offset) + i];
        value = values[i] + 0.1 * value;
      }
    }
    x = draw(shape.tokens() * Width);
    initial = draw(shape.batch * Layer::state_size);
    dy_ = draw(shape.tokens() * Width);
    dfinal_ = draw(shape.batch * Layer::state_size);
  }

  void forward() {
    y.assign(x.size(), nan);
    states = initial;
    Layer::forward(Forward<Device, double, double>{device_, shape_, true, view(states), report_.data(), scratch()},
                   bind_weights<Layer>(std::as_const(parameters).data()), saved(), rows(std::as_const(x)), rows(y));
  }

  double objective() {
    forward();
    double sum = auxiliary_weight * Layer::auxiliary_loss(report_.data());
    for (std::size_t i = 0; i < y.size(); ++i) sum += dy_[i] * y[i];
    for (std::size_t i = 0; i < states.size(); ++i) sum += dfinal_[i] * states[i];
    return sum;
  }

  /// After forward(): the gradients with respect to parameters, x and initial.
  void backward() {
    constexpr bool is_norm = requires { Definition::is_norm; };
    dparameters.assign(parameters.size(), 1.0);  // is added to
    for (const Parameter& parameter : layer_parameters<Layer>) {
      if (parameter.gradient_start == GradientStart::overwrite) fill_of(parameter, nan);
    }
    dx.assign(x.size(), is_norm ? 0.0 : nan);
    dinitial = dfinal_;
    Layer::backward(Backward<Device, double, double>{.device = device_,
                                                     .shape = shape_,
                                                     .auxiliary_weight = auxiliary_weight,
                                                     .dstate = view(dinitial),
                                                     .report = report_.data(),
                                                     .scratch = scratch(),
                                                     .begins = true},
                    bind_weights<Layer>(std::as_const(parameters).data()), bind_weights<Layer>(dparameters.data()),
                    saved(), rows(std::as_const(x)), rows(std::as_const(dy_)), rows(dx));
    for (const Parameter& parameter : layer_parameters<Layer>) {
      if (parameter.gradient_start == GradientStart::zero) fill_of(parameter, -1.0, 1.0);
    }
  }

  std::vector<double> parameters, x, initial;     // the layer's inputs
  std::vector<double> y, states;                  // its outputs; the states are the final ones
  std::vector<double> dparameters, dx, dinitial;  // gradients

 private:
  static constexpr double nan = std::numeric_limits<double>::quiet_NaN(), auxiliary_weight = 0.5;

  /// Sets the gradients of a parameter to keep · (their old values) + value.
  void fill_of(const Parameter& parameter, double value, double keep = 0) {
    for (Index i = 0; i < parameter.size(); ++i) {
      double& gradient = dparameters[static_cast<std::size_t>(parameter.offset + i)];
      gradient = keep == 0 ? value : keep * gradient + value;
    }
  }
  template <class T>
  auto rows(T& values) const {
    return matrix(values.data(), shape_.tokens(), Index{Width});
  }
  static StateView<double> view(std::vector<double>& values) { return {values.data(), Layer::state_size}; }
  Arena scratch() const { return Arena(scratch_.data()); }
  typename Layer::template Saved<double> saved() const {
    Arena arena(tape_.data());
    return typename Layer::template Saved<double>(arena, device_, shape_);
  }

  Device& device_;
  Shape shape_;
  HostMemory tape_, scratch_;
  std::vector<double> report_, dy_, dfinal_;
};

/// The largest difference of `gradient` from finite differences by some fifty of `values`, over its largest element.
template <class Objective>
double gradient_error(std::span<double> values, std::span<const double> gradient, const Objective& objective) {
  double largest = 1e-3, error = 0;  // the former of a gradient that vanishes
  for (const double element : gradient) largest = std::max(largest, std::abs(element));
  const std::size_t stride = std::max<std::size_t>(1, values.size() / 50);
  for (std::size_t i = 0; i < values.size(); i += stride) {
    double best = std::numeric_limits<double>::infinity();
    // Two central differences, extrapolated: exact to h⁴. Where the function has a kink nearby, in a ReLU or in the
    // choice of an expert, a shorter step does not reach it.
    for (const double h : {1e-3, 1e-4, 1e-5}) {
      const double at = values[i];
      const auto difference = [&](double step) {
        values[i] = at + step;
        const double above = objective();
        values[i] = at - step;
        return (above - objective()) / (2 * step);
      };
      const double expected = (4 * difference(h / 2) - difference(h)) / 3;
      values[i] = at;
      best = std::min(best, std::abs(gradient[i] - expected) / largest);
      if (best <= 1e-8) break;
    }
    error = std::max(error, best);
  }
  return error;
}

/// The results of a layer for some rows of a batch, in several calls, compared with those of one call.
struct RowComparison {
  double error = 0;
  void add(std::span<const double> actual, std::span<const double> expected) {
    double largest = 1e-3;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double difference = std::abs(actual[i] - expected[i]) / largest;
      error = difference <= error ? error : difference;  // a NaN stays
    }
  }
};

}  // namespace detail

/// Checks a layer or norm by its definition, in double, with parameters near their initial values and data drawn from
/// the seed: gradients with respect to every parameter, the input and the initial states against finite differences,
/// for sequences of one length and packed ones; packed sequences against each alone; sequences read in two calls
/// against one. A layer that couples the tokens of a batch by definition, as a limit of capacity does, fails the latter
/// two.
///
/// The device must work in host memory. Throws what its operations throw.
template <class Definition, int Width, class Device>
LayerCheck check_layer(Device& device, Seed seed = {1}) {
  using Bench = detail::LayerBench<Definition, Width, Device>;
  using Layer = typename Bench::Layer;
  constexpr bool takes_packed = Layer::takes_packed;
  const auto part = [](std::span<const double> values, Index first, Index count) {
    return values.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(count));
  };
  LayerCheck check;

  const std::vector<Index> lengths{3, 0, 1, 5};
  for (const Shape shape : {Shape{2, 4}, Shape::packed(lengths)}) {
    if (shape.lengths != nullptr && !takes_packed) break;
    Bench bench(device, shape, seed);
    (void)bench.objective();
    bench.backward();
    const auto compare = [&](std::string_view name, std::span<double> values, std::span<const double> gradient) {
      const double error = detail::gradient_error(values, gradient, [&] { return bench.objective(); });
      if (error <= check.gradients) return;
      check.gradients = error;
      check.furthest = name;
    };
    for (const Parameter& parameter : layer_parameters<Layer>) {
      const auto first = static_cast<std::size_t>(parameter.offset), count = static_cast<std::size_t>(parameter.size());
      compare(parameter.name.view(), std::span(bench.parameters).subspan(first, count),
              std::span(bench.dparameters).subspan(first, count));
    }
    compare("input", bench.x, bench.dx);
    compare("initial states", bench.initial, bench.dinitial);
  }

  // Reads rows [first, first + count) of `whole`, starting from `states`, and compares the layer's results.
  const auto read = [&](detail::RowComparison& all, const Bench& whole, Index first, Index count,
                        std::vector<double>& states) {
    Bench bench(device, Shape{1, count}, seed);
    const auto x = part(whole.x, first * Width, count * Width);
    bench.x.assign(x.begin(), x.end());
    bench.initial = states;
    bench.forward();
    all.add(bench.y, part(whole.y, first * Width, count * Width));
    states = bench.states;
  };
  const auto compare_sequences = [&](Shape shape, bool in_two) {
    Bench whole(device, shape, seed);
    whole.forward();
    detail::RowComparison all;
    for (Index sequence = 0, row = 0; sequence < shape.batch; ++sequence) {
      const Index length = shape.length_of(sequence), first = in_two ? length / 3 : 0;
      const auto given = part(whole.initial, sequence * Layer::state_size, Layer::state_size);
      std::vector<double> states(given.begin(), given.end());
      if (in_two) read(all, whole, row, first, states);
      read(all, whole, row + first, length - first, states);
      all.add(states, part(whole.states, sequence * Layer::state_size, Layer::state_size));
      row += length;
    }
    return all.error;
  };
  if (takes_packed) check.packing = compare_sequences(Shape::packed(lengths), false);
  check.chunks = compare_sequences({2, 7}, true);
  return check;
}

}  // namespace moe_mamba::inline v0_2
