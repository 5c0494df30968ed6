#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/data.hpp"

/// Small models that the tests share, and batches for them. Widths are odd on purpose; numbers of states and of experts
/// recur, so that the models share kernels and compile fast.
namespace test {

using namespace moe_mamba;

/// Mamba layers of two kinds, tied head.
using MambaNet = LanguageModel<Vocabulary<11>, Width<6>, Mamba<State<3>, Expand<1>>,
                               Mamba<State<2>, Convolution<3>, Expand<2>, StepRank<2>>>;

/// The library's purpose, small: Mamba and one expert of several in turn.
using MixtureNet =
    LanguageModel<Vocabulary<13>, Width<5>,
                  Repeat<2, Mamba<State<3>, Expand<2>>, Moe<Experts<4>, TopK<1>, Hidden<3>, ZLoss<1, 50>>>>;

/// Every other way to mix: renormalised gates, shared experts, all experts, gated activations, averaged losses.
using ManyWaysNet =
    LanguageModel<Vocabulary<7>, Width<5>, Head, AverageAuxiliaryLosses, PreNorm<LayerNorm<>>, FinalNorm<NoNorm>,
                  Moe<Experts<4>, TopK<2>, Hidden<3>, SwiGlu, TopKThenSoftmax, SharedExperts<1>, ZLoss<1, 10>>,
                  LayerNorm<Epsilon<1, 1000>>,
                  Parallel<Mamba<State<2>>, Moe<Experts<3>, TopK<3>, Hidden<2>, Gelu, BalanceLoss<1, 5>>>,
                  Residual<NoNorm, Mlp<Hidden<4>, GeGlu>>>;

/// Experts that take no more than their share, so that tokens of a batch depend on each other.
using CapacityNet =
    LanguageModel<Vocabulary<7>, Width<5>, Moe<Experts<4>, TopK<2>, Hidden<3>, Silu, Capacity<3, 4>>, RmsNorm<>, Mlp<>>;

/// A model of series.
using SeriesNet = SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Repeat<2, Mamba<State<3>, Expand<2>>>,
                                Moe<Experts<4>, Hidden<4>, Silu>>;

/// Parameters as initialised, each moved a little, so that no gain is one, no bias zero and no two layers are alike.
template <class Definition>
std::vector<double> parameters(std::uint64_t seed = 1) {
  std::vector<double> values(static_cast<std::size_t>(Definition::parameters));
  initialise<Definition>(Seed{seed}, values.data());
  const auto moves = uniform<double>(Definition::parameters, seed, -0.3, 0.3);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(values[i] + moves[i]);
  return values;
}

/// What goes into a call and what should come out.
template <class Definition, class C>
struct Data {
  static constexpr bool takes_tokens = requires { Definition::vocabulary; };
  using Input = std::conditional_t<takes_tokens, Token, C>;

  Shape shape;
  std::vector<Input> inputs, targets;
};

/// A random batch, the same numbers for each scalar type.
template <class Definition, class C>
Data<Definition, C> data(Shape shape, std::uint64_t seed = 1) {
  Data<Definition, C> batch{shape, {}, {}};
  if constexpr (Data<Definition, C>::takes_tokens) {
    Random random(Seed{seed}, 0xba7c);
    const auto draw = [&](std::vector<Token>& tokens) {
      for (Index t = 0; t < shape.tokens(); ++t) {
        tokens.push_back(static_cast<Token>(random.below(static_cast<std::uint64_t>(Definition::vocabulary))));
      }
    };
    draw(batch.inputs);
    draw(batch.targets);
  } else {
    batch.inputs = uniform<C>(shape.tokens() * Definition::input_width, seed);
    batch.targets = uniform<C>(shape.tokens() * Definition::output_width, seed + 100);
  }
  return batch;
}

/// Random running states, the same numbers for each scalar type.
template <class Definition, class S>
States<Definition, S> random_states(Index count, std::uint64_t seed = 1) {
  States<Definition, S> states(count);
  const auto values = uniform<compute_t<S>>(count * states.state_size, seed + 200);
  std::copy(values.begin(), values.end(), states.values().begin());
  return states;
}

/// A model with room to call it.
template <class Definition, class S = double, class Device = Cpu>
struct Bench {
  using C = compute_t<S>;
  using Input = typename Data<Definition, C>::Input;

  Bench(Device& on, Shape largest, const std::vector<double>& values, Purpose purpose = Purpose::training)
      : model(Uninitialised{}), workspace(on, largest, purpose) {
    for (std::size_t i = 0; i < values.size(); ++i) model.parameters()[i] = S(values[i]);
  }

  std::vector<C> forward(const std::vector<Input>& inputs, Shape shape, States<Definition, S>* states = nullptr) {
    auto outputs = poison<C>(shape.tokens() * Definition::output_width);
    model.forward(workspace, inputs, shape, outputs, states);
    return outputs;
  }

  Losses loss(const Data<Definition, C>& data, States<Definition, S>* states = nullptr) {
    return model.loss(workspace, std::span<const Input>(data.inputs), std::span<const Input>(data.targets), data.shape,
                      states);
  }

  Losses gradient(const Data<Definition, C>& data, std::vector<C>& gradients, States<Definition, S>* states = nullptr,
                  States<Definition, S>* dstates = nullptr) {
    return model.gradient(workspace, std::span<const Input>(data.inputs), std::span<const Input>(data.targets),
                          data.shape, gradients, states, dstates);
  }

  std::vector<C> gradient(const Data<Definition, C>& data) {
    std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
    (void)gradient(data, gradients);
    return gradients;
  }

  Model<Definition, S, Device> model;
  Workspace<Definition, S, Device> workspace;
};

}  // namespace test
