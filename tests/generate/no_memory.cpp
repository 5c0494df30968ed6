// Objects are unchanged after running out of memory: the n-th allocation fails, for every n, in the public calls on
// models, states, workspaces, decoders, scorers, windows and packed batches.
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/generate/any_decoder.hpp"
#include "moe_mamba/generate/scorer.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/windows.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Net = test::WritingNet;  // a vocabulary of 19

const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 6, 7, 18};

/// Makes objects with each of the allocations failing in turn; returns the number of failures.
template <class Make>
long fail_construction(const Make& make) {
  return test::fail_each_allocation([] { return 0; }, [&](int) { (void)make(); }, [](int) {});
}

/// Checks that `look` finds the same in an object on which `call` has failed as in one without the call.
template <class Make, class Call, class Look>
long fail_call(const Make& make, const Call& call, const Look& look) {
  const auto untouched = make();
  const auto expected = look(*untouched);
  return test::fail_each_allocation(
      make, [&](const auto& object) { call(*object); }, [&](const auto& object) { CHECK(look(*object) == expected); });
}

}  // namespace

TEST_CASE("models, states and workspaces that run out of memory free what they allocated", "[generate]") {
  CHECK(fail_construction([] { return Model<Net>(Seed{1}); }) == 1);
  CHECK(fail_construction([] { return Model<Net>(Uninitialised{}); }) == 1);
  CHECK(fail_construction([] { return States<Net>(3); }) == 1);
  const States<Net> states(3);
  CHECK(fail_construction([&] { return States<Net>(states); }) == 1);
  CHECK(fail_construction([] { Cpu device(Threads{3}); }) >= 3);
  Cpu device;
  for (const Purpose purpose : {Purpose::inference, Purpose::training}) {
    CHECK(fail_construction([&] { Workspace<Net> workspace(device, {2, 3}, purpose); }) == 1);
  }
}

TEST_CASE("calls on a model allocate no memory in any state", "[generate]") {
  const Model<Net> model(Seed{1});
  Cpu device(Threads{2});
  Workspace<Net> workspace(device, {2, 4}, Purpose::training);
  States<Net> states(2), dstates(2), kept(2);
  std::vector<float> outputs(8 * 19), gradients(static_cast<std::size_t>(Net::parameters)), values(gradients.size());
  const auto some = std::span(tokens).first(8);
  const test::AllocationCounter counter;
  model.forward(workspace, some, {2, 4}, outputs, &states);
  model.backward(workspace, outputs, gradients, {}, &dstates);
  model.gradient(workspace, some, some, {2, 4}, gradients, &states, &dstates);
  model.loss(workspace, some, some, {2, 4}, &states);
  model.read(values);
  kept = states;
  states.reset();
  states.reset(1);
  CHECK(counter.count() == 0);
}

TEST_CASE("a decoder that runs out of memory is unchanged", "[generate]") {
  const Model<Net> model(Seed{1});
  CHECK(fail_construction([&] {
          Cpu cpu(Threads{2});
          Decoder decoder(model, cpu);
        }) >= 4);
  CHECK(fail_construction([&] { return make_decoder(model); }) >= 4);
  const auto make = [&] {
    auto decoder = std::make_unique<Decoder<Net, float>>(model);
    decoder->prefill(std::span(tokens).first(5));
    return decoder;
  };
  const auto look = [](auto& decoder) {
    std::vector<float> seen(decoder.logits().begin(), decoder.logits().end());
    const auto next = decoder.step(3);
    seen.insert(seen.end(), next.begin(), next.end());
    return seen;
  };
  const States<Net> other(1);
  const std::vector<float> logits(19);
  const std::vector<std::function<void(Decoder<Net, float>&)>> without{
      [](auto& decoder) { decoder.prefill(tokens); }, [](auto& decoder) { decoder.step(2); },
      [&](auto& decoder) { decoder.restore(other, logits); }, [](auto& decoder) { decoder.reset(); }};
  for (const auto& call : without) CHECK(fail_call(make, call, look) == 0);
  const auto write = [](const auto& prompt, Sampling sampling) {
    return [=](auto& decoder) {
      for (const Token token : decoder.generate(prompt, sampling, Seed{1}, 4)) (void)token;
    };
  };
  CHECK(fail_call(make, write(std::span<const Token>(tokens), TopP{0.9f}), look) >= 1);
  CHECK(fail_call(make, write(std::string_view("\1\2\3\4\5\6\7\10\11\12\13\14"), TopP{0.5f}), look) >= 2);
}

TEST_CASE("a scorer allocates all its memory on construction", "[generate]") {
  const Model<Net> model(Seed{1});
  CHECK(fail_construction([&] {
          Cpu cpu(Threads{2});
          Scorer scorer(model, cpu);
        }) >= 5);
  Scorer scorer(model);
  const test::AllocationCounter counter;
  scorer.text(tokens);
  scorer.windows(tokens, 7, 3);
  CHECK(counter.count() == 0);
}

TEST_CASE("windows that run out of memory are not constructed", "[generate]") {
  CHECK(fail_construction([] { return windows(tokens, Length{3}, Batch{2}, Seed{1}); }) == 2);
  CHECK(fail_construction([] { return sequential_windows(tokens, Length{3}, Batch{2}); }) == 2);
}

TEST_CASE("a packed batch that runs out of memory is unchanged", "[generate]") {
  const auto make = [] {
    auto batch = std::make_unique<PackedBatch>();
    batch->add(std::span(tokens).first(3));
    return batch;
  };
  const auto look = [](const PackedBatch& batch) {
    const TokenBatch all = batch.batch();
    std::vector<Index> seen(all.inputs.begin(), all.inputs.end());
    seen.insert(seen.end(), all.targets.begin(), all.targets.end());
    seen.insert(seen.end(), batch.lengths().begin(), batch.lengths().end());
    seen.push_back(all.shape.tokens());
    return seen;
  };
  CHECK(fail_call(
            make, [](PackedBatch& batch) { batch.add(tokens, 4); }, look) == 3);
  CHECK(fail_call(
            make, [](PackedBatch& batch) { batch.add(tokens, tokens); }, look) == 3);
  const std::vector<Index> lengths{6, 0, 5};
  const auto rows = std::span(tokens).first(18);
  CHECK(fail_call(
            make,
            [&](PackedBatch& batch) {
              batch.add_padded(rows, rows, {3, 6}, lengths);
            },
            look) == 3);
  CHECK(fail_call(
            make, [](PackedBatch& batch) { batch.clear(); }, look) == 0);
  // Memory grows geometrically: adding is not quadratic.
  PackedBatch batch;
  const test::AllocationCounter counter;
  for (int i = 0; i < 10'000; ++i) batch.add(std::span(tokens).first(3));
  CHECK(counter.count() <= 3 * 20);
}
