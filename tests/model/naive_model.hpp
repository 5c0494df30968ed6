#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

#include "layers/naive.hpp"
#include "layers/naive_attention.hpp"
#include "layers/naive_mamba.hpp"
#include "moe_mamba/language/attention.hpp"
#include "moe_mamba/language/language_model.hpp"
#include "moe_mamba/language/mamba.hpp"
#include "moe_mamba/language/mlp.hpp"
#include "moe_mamba/language/moe.hpp"
#include "moe_mamba/language/norm.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/sequence_model.hpp"
#include "moe_mamba/model/cost.hpp"

/// Whole models in plain loops: a definition is parsed independently, from its options alone, and computed with the
/// naive layers.
namespace naive {

template <class T>
struct Tag {};

/// The options of a layer or model. Negative: not given.
struct Settings {
  Index vocabulary = -1, width = -1, inputs = -1, outputs = -1;
  Index state = 16, taps = 4, expand = 2, inner = -1, rank = -1, hidden = -1;
  Attention attention{1, -1, -1, 1, -1, 10000, false, false};
  Moe moe;
  MambaExperts experts;
  Activation activation = Activation::relu;
  Norm norm, pre_norm, final_norm, inner_norm = {NormKind::none, 0};
  bool projection_bias = false, convolution_bias = true;
  bool own_head = false, average = false;
};

// clang-format off
template <int N> void read(Settings& s, Tag<moe_mamba::Vocabulary<N>>) { s.vocabulary = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Width<N>>) { s.width = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Inputs<N>>) { s.inputs = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Outputs<N>>) { s.outputs = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::State<N>>) { s.state = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Convolution<N>>) { s.taps = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Expand<N>>) { s.expand = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Inner<N>>) { s.inner = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::InputExperts<N>>) { s.experts.input = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::GateExperts<N>>) { s.experts.gate = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::OutputExperts<N>>) { s.experts.output = N; }
inline void read(Settings& s, Tag<moe_mamba::SharedRouter>) { s.experts.separate = false; }
inline void read(Settings& s, Tag<moe_mamba::SeparateRouters>) { s.experts.separate = true; }
template <int N> void read(Settings& s, Tag<moe_mamba::StepRank<N>>) { s.rank = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Hidden<N>>) { s.hidden = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Experts<N>>) { s.moe.experts = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::TopK<N>>) { s.moe.top_k = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::SharedExperts<N>>) { s.moe.shared = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Heads<N>>) { s.attention.H = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::KeyValueHeads<N>>) { s.attention.G = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::HeadWidth<N>>) { s.attention.d = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Context<N>>) { s.attention.window = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::Rotary<N>>) { s.attention.base = N; }
template <int N> void read(Settings& s, Tag<moe_mamba::RotaryWidth<N>>) { s.attention.rotary = N; }
inline void read(Settings& s, Tag<moe_mamba::NoPositions>) { s.attention.rotary = 0; }
inline void read(Settings& s, Tag<moe_mamba::InputBiases>) { s.attention.input_biases = true; }
inline void read(Settings& s, Tag<moe_mamba::Biases>) { s.attention.input_biases = s.attention.output_bias = true; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::Capacity<N, D>>) { s.moe.capacity_numerator = N; s.moe.capacity_denominator = D; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::FloorCapacity<N, D>>) { read(s, Tag<moe_mamba::Capacity<N, D>>()); s.moe.floor_capacity = true; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::BalanceLoss<N, D>>) { s.moe.balance = double(N) / D; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::ZLoss<N, D>>) { s.moe.z = double(N) / D; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::Epsilon<N, D>>) { s.norm.epsilon = double(N) / D; }
inline void read(Settings& s, Tag<moe_mamba::SoftmaxThenTopK>) { s.moe.renormalise = false; }
inline void read(Settings& s, Tag<moe_mamba::TopKThenSoftmax>) { s.moe.renormalise = true; }
inline void read(Settings& s, Tag<moe_mamba::SigmoidThenTopK>) { s.moe.sigmoid = true; }
inline void read(Settings& s, Tag<moe_mamba::NormalisedGates>) { s.moe.normalise = true; }
template <int N, int D> void read(Settings& s, Tag<moe_mamba::GateScale<N, D>>) { s.moe.gate_scale = double(N) / D; }
inline void read(Settings& s, Tag<moe_mamba::RouterBias>) { s.moe.router_bias = true; }
inline void read(Settings& s, Tag<moe_mamba::SelectionBias>) { s.moe.selection_bias = true; }
inline void read(Settings& s, Tag<moe_mamba::ProjectionBias>) { s.projection_bias = true; }
inline void read(Settings& s, Tag<moe_mamba::NoConvolutionBias>) { s.convolution_bias = false; }
inline void read(Settings& s, Tag<moe_mamba::NoGain>) { s.norm.gain = false; }
inline void read(Settings& s, Tag<moe_mamba::Relu>) { s.activation = Activation::relu; }
inline void read(Settings& s, Tag<moe_mamba::SquaredRelu>) { s.activation = Activation::squared_relu; }
inline void read(Settings& s, Tag<moe_mamba::Gelu>) { s.activation = Activation::gelu; }
inline void read(Settings& s, Tag<moe_mamba::Silu>) { s.activation = Activation::silu; }
inline void read(Settings& s, Tag<moe_mamba::SwiGlu>) { s.activation = Activation::swiglu; }
inline void read(Settings& s, Tag<moe_mamba::GeGlu>) { s.activation = Activation::geglu; }
inline void read(Settings& s, Tag<moe_mamba::TiedHead>) { s.own_head = false; }
inline void read(Settings& s, Tag<moe_mamba::Head>) { s.own_head = true; }
inline void read(Settings& s, Tag<moe_mamba::SumAuxiliaryLosses>) { s.average = false; }
inline void read(Settings& s, Tag<moe_mamba::AverageAuxiliaryLosses>) { s.average = true; }
// clang-format on

template <class... Options>
Settings settings_of() {
  Settings settings;
  (read(settings, Tag<Options>{}), ...);
  return settings;
}

template <class... Options>
Norm norm_of(Tag<moe_mamba::RmsNorm<Options...>>) {
  const Settings settings = settings_of<Options...>();
  return {NormKind::rms, settings.norm.epsilon, settings.norm.gain};
}
template <class... Options>
Norm norm_of(Tag<moe_mamba::LayerNorm<Options...>>) {
  return {NormKind::layer, settings_of<Options...>().norm.epsilon};
}
inline Norm norm_of(Tag<moe_mamba::NoNorm>) { return {NormKind::none, 0}; }

template <class N>
void read(Settings& settings, Tag<moe_mamba::PreNorm<N>>) {
  settings.pre_norm = norm_of(Tag<N>{});
}
template <class N>
void read(Settings& settings, Tag<moe_mamba::FinalNorm<N>>) {
  settings.final_norm = norm_of(Tag<N>{});
}

template <class N>
void read(Settings& settings, Tag<moe_mamba::InnerNorm<N>>) {
  settings.inner_norm = norm_of(Tag<N>{});
}

template <class T>
concept IsOption = requires(Settings settings) {
  read(settings, Tag<T>{});
};

/// The residual stream of a model.
struct Stream {
  Run& run;
  Matrix x;
  Norm pre_norm;
  Index layer = 0;
};

template <class... Options>
Matrix layer(Tag<moe_mamba::Mamba<Options...>>, Run& run, const std::string& prefix, const Matrix& x) {
  const Settings s = settings_of<Options...>();
  const Index rank = s.rank < 0 ? (x.columns + 15) / 16 : s.rank;
  MambaExperts experts = s.experts;
  experts.hidden = std::max<Index>(0, s.hidden);
  experts.routing = s.moe;
  experts.routing.activation = s.activation;
  const Index inner = s.inner < 0 ? s.expand * x.columns : s.inner;
  return mamba({inner, s.state, s.taps, rank, s.inner_norm, s.projection_bias, s.convolution_bias, experts}, run,
               prefix, x);
}
template <class... Options>
Matrix layer(Tag<moe_mamba::Attention<Options...>>, Run& run, const std::string& prefix, const Matrix& x) {
  Attention sizes = settings_of<Options...>().attention;
  if (sizes.G < 0) sizes.G = sizes.H;
  if (sizes.d < 0) sizes.d = x.columns / sizes.H;
  if (sizes.rotary < 0) sizes.rotary = sizes.d;
  return attention(sizes, run, prefix, x);
}
template <class... Options>
Matrix layer(Tag<moe_mamba::Mlp<Options...>>, Run& run, const std::string& prefix, const Matrix& x) {
  const Settings s = settings_of<Options...>();
  return mlp(s.activation, s.hidden < 0 ? 4 * x.columns : s.hidden, run, prefix, x);
}
template <class... Options>
Matrix layer(Tag<moe_mamba::Moe<Options...>>, Run& run, const std::string& prefix, const Matrix& x) {
  const Settings s = settings_of<Options...>();
  Moe config = s.moe;
  config.hidden = s.hidden < 0 ? 4 * x.columns : s.hidden;
  config.activation = s.activation;
  return moe(config, run, prefix, x);
}
template <class A, class B>
Matrix layer(Tag<moe_mamba::Parallel<A, B>>, Run& run, const std::string& prefix, const Matrix& x) {
  const Matrix first = layer(Tag<A>{}, run, prefix + "0.", x);
  return sum(first, layer(Tag<B>{}, run, prefix + "1.", x));
}

template <class Layer>
void residual(const Norm& pre_norm, Tag<Layer> tag, Stream& stream) {
  const std::string prefix = "layers." + std::to_string(stream.layer++);
  const Matrix normed = norm(pre_norm, stream.run.weights, prefix + ".norm.", stream.x);
  stream.x = sum(stream.x, layer(tag, stream.run, prefix + ".mixer.", normed));
}

template <class N, class Layer>
void item(Tag<moe_mamba::Residual<N, Layer>>, Stream& stream) {
  residual(norm_of(Tag<N>{}), Tag<Layer>{}, stream);
}
template <class... Items>
void item(Tag<moe_mamba::Sequence<Items...>>, Stream& stream) {
  (item(Tag<Items>{}, stream), ...);
}
template <int Times, class... Items>
void item(Tag<moe_mamba::Repeat<Times, Items...>>, Stream& stream) {
  for (int time = 0; time < Times; ++time) (item(Tag<Items>{}, stream), ...);
}
template <class T>
void item(Tag<T> tag, Stream& stream) {
  if constexpr (IsOption<T>) {
    return;
  } else if constexpr (requires { norm_of(tag); }) {
    stream.x = norm(norm_of(tag), stream.run.weights, "layers." + std::to_string(stream.layer++) + ".norm.", stream.x);
  } else {
    residual(stream.pre_norm, tag, stream);
  }
}

/// A definition's options, for both kinds of model.
template <class Definition>
struct ArgumentsOf;
template <class... Arguments>
struct ArgumentsOf<moe_mamba::LanguageModel<Arguments...>> {
  using type = moe_mamba::Sequence<Arguments...>;
};
template <class... Arguments>
struct ArgumentsOf<moe_mamba::SequenceModel<Arguments...>> {
  using type = moe_mamba::Sequence<Arguments...>;
};

template <class... Arguments>
Settings settings_of_model(Tag<moe_mamba::Sequence<Arguments...>>) {
  Settings settings;
  const auto look = [&](auto tag) {
    if constexpr (requires { read(settings, tag); }) read(settings, tag);
  };
  (look(Tag<Arguments>{}), ...);
  return settings;
}

/// The results of a call.
struct Outcome {
  Matrix outputs;
  std::vector<Vector> states;
  std::vector<Router> routers;
  double auxiliary = 0;
  std::uint64_t decisions = 0;
  bool all_parameters_used = false;
};

/// Outputs of a model. `Input` is a token id or a number; `states` holds one vector per sequence; `counted`: which
/// tokens count in auxiliary losses; all if it is empty.
template <class Definition, class Input>
Outcome forward(const Vector& parameters, const std::vector<Input>& inputs, Index batch, Index length,
                const std::vector<Vector>& states, std::vector<bool> counted = {}) {
  const Tag<typename ArgumentsOf<Definition>::type> arguments;
  const Settings settings = settings_of_model(arguments);
  Weights weights;
  for (const auto& parameter : moe_mamba::parameter_list<Definition>()) {
    weights.add(std::string(parameter.name.view()), parameters.data() + parameter.offset);
  }
  const Index D = settings.width, T = batch * length;
  Run run{weights, batch, length, states};
  run.counted = std::move(counted);
  Stream stream{run, Matrix(T, D), settings.pre_norm};
  const auto add_bias = [](Matrix& x, const double* bias) {
    for (Index t = 0; t < x.rows; ++t) {
      for (Index i = 0; i < x.columns; ++i) x(t, i) += bias[i];
    }
  };
  if constexpr (std::is_same_v<Input, double>) {
    Matrix given(T, settings.inputs);
    given.values = inputs;
    stream.x = product(given, weights("input.weight"), D);
    add_bias(stream.x, weights("input.bias"));
  } else {
    const double* embedding = weights("embedding.weight");
    for (Index t = 0; t < T; ++t) {
      for (Index i = 0; i < D; ++i) stream.x(t, i) = embedding[Index{inputs[at(t)]} * D + i];
    }
  }
  item(arguments, stream);
  const Matrix normed = norm(settings.final_norm, weights, "norm_f.", stream.x);
  const bool series = std::is_same_v<Input, double>;
  const char* head = series ? "output.weight" : (settings.own_head ? "lm_head.weight" : "embedding.weight");
  Outcome outcome{product(normed, weights(head), series ? settings.outputs : settings.vocabulary), run.states,
                  run.routers};
  if (series) add_bias(outcome.outputs, weights("output.bias"));
  for (const Router& router : run.routers) outcome.auxiliary += router.balance_loss + router.z_loss;
  if (settings.average && !run.routers.empty()) outcome.auxiliary /= static_cast<double>(run.routers.size());
  outcome.decisions = run.decisions;
  outcome.all_parameters_used = weights.all_used() || T == 0;
  return outcome;
}

/// Mean cross-entropy over the targets that are not -1, without auxiliary losses.
inline double cross_entropy(const Matrix& logits, const std::vector<moe_mamba::Token>& targets) {
  double loss = 0, count = 0;
  for (Index t = 0; t < logits.rows; ++t) {
    if (targets[at(t)] == -1) continue;
    double total = 0;
    for (Index v = 0; v < logits.columns; ++v) total += std::exp(logits(t, v));
    loss += std::log(total) - logits(t, targets[at(t)]);
    count += 1;
  }
  return count == 0 ? 0 : loss / count;
}

/// Mean of the squared errors.
inline double squared_error(const Matrix& outputs, const Vector& targets) {
  double loss = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    loss += (outputs.values[i] - targets[i]) * (outputs.values[i] - targets[i]);
  }
  return targets.empty() ? 0 : loss / static_cast<double>(targets.size());
}

}  // namespace naive
