#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "model/passes.hpp"
#include "support/backend.hpp"
#include "support/data.hpp"

/// Parameters and batches for the tests' models, and the objects needed to call one.
namespace test {

using namespace moe_mamba;

/// Initial parameters, each perturbed a little, so that no gain is one, no bias zero and no two layers are equal.
template <class Definition>
std::vector<double> parameters(std::uint64_t seed = 1) {
  std::vector<double> values(static_cast<std::size_t>(Definition::parameters));
  initialise<Definition>(Seed{seed}, values.data());
  const auto moves = uniform<double>(Definition::parameters, seed, -0.3, 0.3);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(values[i] + moves[i]);
  return values;
}

/// The inputs and targets of a call.
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

/// A model with a workspace. States, gradients and all other arguments are in host memory; if the device has its own
/// memory, they are copied there and back.
template <class Definition, class S = double, class Device = Backend>
struct Bench {
  using C = compute_t<S>;
  using Memory = typename Device::Memory;
  using Input = typename Data<Definition, C>::Input;
  using HostStates = States<Definition, S>;
  using DeviceStates = States<Definition, S, Memory>;

  Bench(Device& on, Shape largest, const std::vector<double>& values, Purpose purpose = Purpose::training)
      : model(Uninitialised{}), workspace(on, largest, purpose) {
    write(values);
  }

  void write(const std::vector<double>& values) {
    std::vector<S> stored;
    for (const double value : values) stored.push_back(S(value));
    model.write(stored);
  }

  void forward(std::span<const Input> inputs, Shape shape, std::span<C> outputs, HostStates* states = nullptr) {
    on_device(states, nullptr,
              [&](DeviceStates* there, DeviceStates*) { model.forward(workspace, inputs, shape, outputs, there); });
  }
  std::vector<C> forward(const std::vector<Input>& inputs, Shape shape, HostStates* states = nullptr) {
    auto outputs = poison<C>(shape.tokens() * Definition::output_width);
    forward(inputs, shape, outputs, states);
    return outputs;
  }

  std::vector<C> forward_last(const std::vector<Input>& inputs, Shape shape, HostStates* states = nullptr) {
    auto outputs = poison<C>(shape.batch * Definition::output_width);
    on_device(states, nullptr, [&](DeviceStates* there, DeviceStates*) {
      model.forward_last(workspace, inputs, shape, outputs, there);
    });
    return outputs;
  }

  std::vector<C> step(HostStates& states, const std::vector<Input>& inputs) {
    auto outputs = poison<C>(states.count() * Definition::output_width);
    on_device(&states, nullptr,
              [&](DeviceStates* there, DeviceStates*) { model.step(workspace, *there, inputs, outputs); });
    return outputs;
  }

  Losses loss(const Data<Definition, C>& data, HostStates* states = nullptr) {
    Losses losses;
    on_device(states, nullptr, [&](DeviceStates* there, DeviceStates*) {
      losses = model.loss(workspace, data.inputs, data.targets, data.shape, there);
    });
    return losses;
  }

  Losses gradient(const Data<Definition, C>& data, std::vector<C>& gradients, HostStates* states = nullptr,
                  HostStates* dstates = nullptr) {
    Losses losses;
    on_device(states, dstates, [&](DeviceStates* there, DeviceStates* dthere) {
      on_device(gradients, [&](SpanOf<C, Memory> sums) {
        losses = model.gradient(workspace, data.inputs, data.targets, data.shape, sums, there, dthere);
      });
    });
    return losses;
  }

  std::vector<C> gradient(const Data<Definition, C>& data) {
    std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
    (void)gradient(data, gradients);
    return gradients;
  }

  void backward(const std::vector<C>& doutputs, std::vector<C>& gradients, std::span<C> dinputs = {},
                HostStates* dstates = nullptr) {
    on_device(nullptr, dstates, [&](DeviceStates*, DeviceStates* dthere) {
      on_device(gradients, [&](SpanOf<C, Memory> sums) { model.backward(workspace, doutputs, sums, dinputs, dthere); });
    });
  }

  /// call(states, dstates) with copies in the device's memory, which are copied back.
  template <class Call>
  static void on_device(HostStates* states, HostStates* dstates, const Call& call) {
    if constexpr (Memory::on_host) {
      call(states, dstates);
    } else {
      std::optional<DeviceStates> there, dthere;
      const auto move = [](std::optional<DeviceStates>& to, HostStates* from) {
        if (from == nullptr) return;
        to.emplace(from->count());
        to->write(from->values());
      };
      move(there, states);
      move(dthere, dstates);
      call(there ? &*there : nullptr, dthere ? &*dthere : nullptr);
      if (there) there->read(states->values());
      if (dthere) dthere->read(dstates->values());
    }
  }
  template <class Call>
  static void on_device(std::vector<C>& values, const Call& call) {
    if constexpr (Memory::on_host) {
      call(values);
    } else {
      Array<C, Memory> there(values.size());
      there.write(values);
      call(there);
      there.read(values);
    }
  }

  Model<Definition, S, Device> model;
  Workspace<Definition, S, Device> workspace;
};

}  // namespace test
