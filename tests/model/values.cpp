// Models and running states as values: one block of numbers each, to own, borrow, copy, fork and share.
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <thread>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

using Net = test::MixtureNet;
using NetStates = States<Net, float>;

std::vector<float> step(Bench<Net, float>& bench, NetStates& states, std::vector<Token> tokens) {
  auto outputs = test::poison<float>(static_cast<Index>(tokens.size()) * Net::output_width);
  bench.model.step(bench.workspace, states, tokens, outputs);
  return outputs;
}

}  // namespace

TEST_CASE("A copied state is independent, and equal after reading the same tokens", "[model][states]") {
  Cpu device;
  Bench<Net, float> bench(device, {1, 4}, test::parameters<Net>(), Purpose::inference);
  NetStates states;
  CHECK(states == NetStates());
  (void)bench.forward({1, 2, 3, 4}, {1, 4}, &states);
  NetStates fork = states;
  const NetStates kept = states;
  CHECK(fork == states);
  const auto first = step(bench, states, {5});
  CHECK_FALSE(fork == states);
  const auto other = step(bench, fork, {6});
  CHECK(first != other);

  // Restored by assignment, and as bytes.
  fork = kept;
  CHECK(step(bench, fork, {5}) == first);
  static_assert(std::is_trivially_copyable_v<NetStates::Scalar>);
  NetStates restored;
  std::memcpy(restored.values().data(), kept.values().data(), kept.values().size_bytes());
  CHECK(restored == kept);
  CHECK(step(bench, restored, {5}) == first);

  states.reset();
  CHECK(states == NetStates());
}

TEST_CASE("States in the caller's memory are the caller's numbers", "[model][states]") {
  std::vector<float> memory(static_cast<std::size_t>(2 * NetStates::state_size), 0.0f);
  NetStates borrowed(memory, 2);
  CHECK(borrowed.values().data() == memory.data());
  CHECK(borrowed.sequence(1).data() == memory.data() + NetStates::state_size);
  Cpu device;
  Bench<Net, float> bench(device, {2, 3}, test::parameters<Net>(), Purpose::inference);
  (void)bench.forward({1, 2, 3, 4, 5, 6}, {2, 3}, &borrowed);
  CHECK(memory[0] != 0);

  const NetStates copy = borrowed;  // in its own memory
  CHECK(copy.values().data() != memory.data());
  const float kept = memory[0];
  memory[0] = 7;
  CHECK(copy.values()[0] == kept);
  borrowed = copy;  // into the same memory
  CHECK(borrowed.values().data() == memory.data());
  CHECK(memory[0] == kept);

  // One sequence is reset, the other is not.
  borrowed.reset(0);
  CHECK(std::count(memory.begin(), memory.begin() + NetStates::state_size, 0.0f) == NetStates::state_size);
  CHECK(std::equal(copy.sequence(1).begin(), copy.sequence(1).end(), borrowed.sequence(1).begin()));
}

TEST_CASE("A model owns or borrows one block of parameters", "[model]") {
  Model<Net> owner(Seed{1});
  CHECK(reinterpret_cast<std::uintptr_t>(owner.parameters().data()) % 64 == 0);
  CHECK(static_cast<Index>(owner.parameters().size()) == Net::parameters);
  std::vector<float> memory(owner.parameters().begin(), owner.parameters().end());
  Model<Net> borrower{std::span<float>(memory)};
  CHECK(borrower.parameters().data() == memory.data());
  for (const Parameter& parameter : parameter_list<Net>()) {
    const auto values = borrower.parameter(parameter.name.view());
    CHECK(values.data() == memory.data() + parameter.offset);
    CHECK(static_cast<Index>(values.size()) == parameter.size());
  }

  Cpu device;
  Workspace<Net> workspace(device, {1, 3});
  const std::vector<Token> tokens{1, 2, 3};
  std::vector<float> a(39), b(39), c(39);
  owner.forward(workspace, tokens, {1, 3}, a);
  borrower.forward(workspace, tokens, {1, 3}, b);
  CHECK(a == b);
  for (float& gain : borrower.parameter("norm_f.weight")) gain *= 2;
  borrower.forward(workspace, tokens, {1, 3}, b);
  CHECK(a != b);

  // Moved, it is the same model.
  const Model<Net> moved = std::move(owner);
  moved.forward(workspace, tokens, {1, 3}, c);
  CHECK(a == c);
}

TEST_CASE("States report whether they are finite", "[model][states]") {
  NetStates states(3);
  CHECK(states.is_finite());
  CHECK(NetStates(0).is_finite());
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    states.sequence(1).back() = value;
    CHECK_FALSE(states.is_finite());
    CHECK(states.is_finite(0));
    CHECK_FALSE(states.is_finite(1));
    CHECK(states.is_finite(2));
    states.reset(1);
    CHECK(states.is_finite());
  }
  CHECK_THROWS_AS(states.is_finite(3), std::out_of_range);
}

TEST_CASE("A workspace's size is known in advance, and larger for training", "[model]") {
  Cpu device;
  using Space = Workspace<Net>;
  CHECK(Space::bytes(device, {2, 100}, Purpose::training) > Space::bytes(device, {2, 100}, Purpose::inference));
  CHECK(Space::bytes(device, {2, 100}, Purpose::inference) > Space::bytes(device, {1, 100}, Purpose::inference));
  const Space space(device, {2, 100}, Purpose::training);
  CHECK(space.largest() == Shape{2, 100});
  CHECK(space.purpose() == Purpose::training);
  CHECK(&space.device() == &device);
}

TEST_CASE("Threads may share one model, each with its own device and workspace", "[model]") {
  const Model<Net> model(Seed{1});
  const auto run = [&](std::uint64_t seed, std::vector<float>& outputs) {
    Cpu device;
    Workspace<Net> workspace(device, {2, 50});
    const auto data = test::data<Net, float>({2, 50}, seed);
    outputs.resize(static_cast<std::size_t>(100 * Net::output_width));
    for (int time = 0; time < 20; ++time) model.forward(workspace, data.inputs, data.shape, outputs);
  };
  std::vector<std::vector<float>> alone(3), together(3);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 3; ++i) run(i, alone[i]);
  for (std::size_t i = 0; i < 3; ++i) threads.emplace_back([&, i] { run(i, together[i]); });
  for (auto& thread : threads) thread.join();
  CHECK(alone == together);
}
