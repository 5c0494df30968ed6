// Two concurrent calls on a device, workspace, states, trainer, decoder or scorer: the second throws before any work.
#include "moe_mamba/core/exclusive_call.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/generate/decoder.hpp"
#include "moe_mamba/generate/scorer.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

using Net = test::TrainedNet;

/// Makes the calls on two threads concurrently until one is refused, or many times; returns the message of the refusal.
/// Calls that were not refused must give correct results.
template <class First, class Second>
std::string refusal(const First& first, const Second& second) {
  std::string message;
  std::atomic<bool> refused{false};
  std::atomic<int> wrong{0};
  const auto repeat = [&](const auto& call) {
    for (int i = 0; i < 200'000 && !refused; ++i) {
      try {
        if (!call()) ++wrong;
      } catch (const std::logic_error& error) {
        if (!refused.exchange(true)) message = error.what();
      }
    }
  };
  std::thread other([&] { repeat(second); });
  repeat(first);
  other.join();
  CHECK(wrong == 0);
  return message;
}

const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1};

}  // namespace

TEST_CASE("a call during another throws, one after it does not, and an exception ends a call as well", "[model]") {
  ExclusiveCall::Flag flag;
  {
    const ExclusiveCall call(flag, "device");
    CHECK_THROWS_WITH(ExclusiveCall(flag, "device"),
                      "the device is in the middle of another call; allowed: one call at a time, so give each thread a "
                      "device of its own");
    const ExclusiveCall::Flag copy = flag;
    ExclusiveCall::Flag another = copy;
    CHECK_NOTHROW(ExclusiveCall(another, "device"));
  }
  CHECK_NOTHROW(ExclusiveCall(flag, "device"));
  try {
    const ExclusiveCall call(flag, "device");
    throw std::runtime_error("");
  } catch (const std::runtime_error&) {
  }
  CHECK_NOTHROW(ExclusiveCall(flag, "device"));
}

TEST_CASE("a device shared by two threads is refused, without hanging or wrong results", "[model]") {
  const Model<Net> model(Seed{1});
  const Shape shape{2, 6};
  std::vector<float> expected(12 * 11);
  Cpu alone;
  Workspace<Net> workspace(alone, shape);
  model.forward(workspace, tokens, shape, expected);
  for (const int threads : {1, 2}) {
    Cpu device(Threads{threads});
    const auto caller = [&] {
      return [&, own = std::make_shared<Workspace<Net>>(device, shape)] {
        std::vector<float> outputs(expected.size());
        model.forward(*own, tokens, shape, outputs);
        return outputs == expected;
      };
    };
    CHECK_THAT(refusal(caller(), caller()), test::Contains("the device is in the middle of another call"));
  }
}

TEST_CASE("a workspace shared by two threads is refused", "[model]") {
  const Model<Net> model(Seed{1});
  const Shape shape{2, 6};
  Cpu device;
  Workspace<Net> workspace(device, shape, Purpose::training);
  std::vector<float> gradients(static_cast<std::size_t>(Net::parameters));
  const double expected = model.loss(workspace, tokens, tokens, shape).prediction;
  const auto loss = [&] {
    model.loss(workspace, tokens, tokens, shape);
    return true;
  };
  CHECK_THAT(refusal(loss, loss), test::Contains("the workspace is in the middle of another call"));
  CHECK(model.loss(workspace, tokens, tokens, shape).prediction == expected);
  const auto gradient = [&] {
    model.gradient(workspace, tokens, tokens, shape, gradients);
    return true;
  };
  CHECK_THAT(refusal(gradient, loss), test::Contains("the workspace is in the middle of another call"));
  CHECK(model.loss(workspace, tokens, tokens, shape).prediction == expected);
}

TEST_CASE("states shared by two threads, each with a workspace and a device of its own, are refused", "[model]") {
  const Model<Net> model(Seed{1});
  const Shape shape{2, 6};
  States<Net> states(2);
  std::vector<float> expected(12 * 11);
  {
    Cpu device;
    Workspace<Net> workspace(device, shape);
    model.forward(workspace, tokens, shape, expected);
  }
  const auto caller = [&] {
    const auto device = std::make_shared<Cpu>();
    return [&, device, own = std::make_shared<Workspace<Net>>(*device, shape)] {
      std::vector<float> outputs(expected.size());
      model.forward(*own, tokens, shape, outputs, &states);
      return true;
    };
  };
  CHECK_THAT(refusal(caller(), caller()), test::Contains("the States object is in the middle of another call"));
  Cpu device;
  Workspace<Net> workspace(device, shape);
  std::vector<float> outputs(expected.size());
  states.reset();
  model.forward(workspace, tokens, shape, outputs, &states);
  CHECK(outputs == expected);
}

TEST_CASE("calls that only read may overlap with each other, but not with other calls", "[model]") {
  ExclusiveCall::Flag flag;
  {
    const ReadingCall first(flag, "States object"), second(flag, "States object");
    CHECK_THROWS_WITH(ExclusiveCall(flag, "States object"), test::Contains("in the middle of another call"));
    CHECK_NOTHROW(ReadingCall(flag, "States object"));
    CHECK_THROWS_AS(ExclusiveCall(flag, "States object"), OrderError);
  }
  {
    const ExclusiveCall call(flag, "States object");
    CHECK_THROWS_WITH(ReadingCall(flag, "States object"),
                      "the States object is in the middle of another call; allowed: one call at a time, so give each "
                      "thread a States object of its own");
  }
  CHECK_NOTHROW(ExclusiveCall(flag, "States object"));
}

TEST_CASE("states copied during another thread's calls are whole or refused, and copied by several threads",
          "[model]") {
  using Series = SequenceModel<Inputs<2>, Outputs<1>, Width<6>, Mamba<State<2>>>;
  const Model<Series> model(Seed{1});
  const Index sequences = 200;
  States<Series> states(sequences);
  const auto alike = [&](const States<Series>& copy) {
    for (Index i = 1; i < sequences; ++i) {
      if (!std::ranges::equal(copy.sequence(i), copy.sequence(0))) return false;
    }
    return true;
  };
  Cpu device;
  Workspace<Series> workspace(device, {sequences, 1});
  const std::vector<float> inputs(static_cast<std::size_t>(2 * sequences), 1.f);
  std::vector<float> outputs(static_cast<std::size_t>(sequences));
  const auto step = [&] {
    model.step(workspace, states, inputs, outputs);
    return true;
  };
  States<Series> target(sequences);
  CHECK_THAT(refusal([&] { return alike(States<Series>(states)); }, step),
             test::Contains("the States object is in the middle of another call"));
  CHECK_THAT(refusal([&] { return alike(target = states); }, step),
             test::Contains("the States object is in the middle of another call"));

  std::atomic<int> failed{0};
  const auto copy = [&] {
    for (int i = 0; i < 2000; ++i) {
      try {
        if (!(States<Series>(states) == states) || !states.is_finite()) ++failed;
      } catch (const std::logic_error&) {
        ++failed;
      }
    }
  };
  std::thread other(copy);
  copy();
  other.join();
  CHECK(failed == 0);
}

TEST_CASE("during a call on states none other begins, nor are their numbers changed or copied", "[model]") {
  const Model<Net> model(Seed{1});
  const Shape shape{2, 6};
  Cpu device;
  Workspace<Net> workspace(device, shape, Purpose::training);
  States<Net> states(2), other(2);
  std::vector<float> outputs(12 * 11), last(2 * 11), gradients(static_cast<std::size_t>(Net::parameters));
  model.forward(workspace, tokens, shape, outputs, &states);
  const States<Net> before = states;
  const auto refused = [](const auto& call) {
    CHECK_THROWS_WITH(call(), test::Contains("the States object is in the middle of another call"));
  };
  {
    const ExclusiveCall call(states.in_use(), "States object");
    refused([&] { model.forward(workspace, tokens, shape, outputs, &states); });
    refused([&] { model.forward_last(workspace, tokens, shape, last, &states); });
    refused([&] { model.step(workspace, states, std::span(tokens).first(2), last); });
    refused([&] { model.loss(workspace, tokens, tokens, shape, &states); });
    refused([&] { model.gradient(workspace, tokens, tokens, shape, gradients, &states); });
    refused([&] { model.gradient(workspace, tokens, tokens, shape, gradients, &other, &states); });
    refused([&] { model.backward(workspace, outputs, gradients, {}, &states); });
    refused([&] { states.reset(); });
    refused([&] { states.reset(1); });
    refused([&] { states.write(before.values()); });
    refused([&] { states = other; });
    std::vector<float> numbers(states.values().size());
    refused([&] { other = states; });
    refused([&] { const States<Net> copy(states); });
    refused([&] { states.read(numbers); });
    refused([&] { states.is_finite(); });
    refused([&] { states.is_finite(1); });
    CHECK(states == before);
    CHECK_NOTHROW(model.forward(workspace, tokens, shape, outputs, &other));  // nothing else was left taken
  }
  CHECK_NOTHROW(model.backward(workspace, outputs, gradients, {}, &states));
  CHECK_NOTHROW(other = states);
  const States<Net>& itself = states;
  CHECK_NOTHROW(states = itself);
  CHECK_THROWS_WITH(model.gradient(workspace, tokens, tokens, shape, gradients, &states, &states),
                    "dstates is the same object as states; allowed: a different one, as both are read and written");
}

TEST_CASE("a trainer, a decoder or a scorer shared by two threads is refused", "[model]") {
  Model<Net> model(Seed{1});
  {
    Trainer trainer(model);
    const TokenBatch batch{tokens, tokens, {2, 6}};
    const double expected = trainer.evaluate(batch).prediction;
    const auto evaluate = [&] { return trainer.evaluate(batch).prediction == expected; };
    CHECK_THAT(refusal(evaluate, evaluate), test::Contains("the trainer is in the middle of another call"));
    const auto accumulate = [&] { return trainer.accumulate(batch).prediction == expected; };
    CHECK_THAT(refusal(accumulate, evaluate), test::Contains("the trainer is in the middle of another call"));
  }
  {
    Decoder decoder(model);
    const auto prefill = [&] {
      decoder.prefill(tokens);
      return true;
    };
    CHECK_THAT(refusal(prefill, prefill), test::Contains("the decoder is in the middle of another call"));
  }
  Scorer scorer(model);
  const double expected = scorer.text(tokens).log_likelihood;
  const auto text = [&] { return scorer.text(tokens).log_likelihood == expected; };
  CHECK_THAT(refusal(text, text), test::Contains("the scorer is in the middle of another call"));
}

TEST_CASE("during a call of a trainer none of its others begins, a checkpoint neither", "[model]") {
  const test::Folder folder;
  const TokenBatch batch{tokens, tokens, {2, 6}};
  Model<Net> model(Seed{1}), before(Seed{1});
  Trainer trainer(model);
  save_checkpoint(folder / "old", trainer);
  const auto progress = trainer.progress();
  const auto refused = [](const auto& call) {
    CHECK_THROWS_WITH(call(), test::Contains("the trainer is in the middle of another call"));
  };
  {
    const ExclusiveCall other(trainer.device().in_use(), "trainer");
    refused([&] { save_checkpoint(folder / "new", trainer); });
    refused([&] { load_checkpoint(folder / "old", trainer); });
    refused([&] { trainer.step(batch); });
    refused([&] { trainer.accumulate(batch); });
    refused([&] { trainer.update(); });
    refused([&] { trainer.discard(); });
    refused([&] { trainer.evaluate(batch); });
    refused([&] { trainer.visit_routers([](const RouterReport&) {}); });
    refused([&] { trainer.progress(); });
    refused([&] { trainer.restore(progress); });
  }
  CHECK(folder.entries() == 1);
  CHECK(std::ranges::equal(model.parameters(), before.parameters()));
  CHECK(trainer.steps() == 0);
  load_checkpoint(folder / "old", trainer);
  CHECK(trainer.step(batch).applied);
}

TEST_CASE("during a call of a decoder none of its others begins", "[model]") {
  const Model<Net> model(Seed{1});
  Decoder decoder(model);
  decoder.prefill(tokens);
  const auto state = decoder.state();
  auto generation = decoder.generate("", Greedy{}, Seed{1}, 2);
  const auto refused = [](const auto& call) {
    CHECK_THROWS_WITH(call(), test::Contains("the decoder is in the middle of another call"));
  };
  int shown = 0;
  decoder.visit_routers([&](const RouterReport&) {  // a call in progress
    ++shown;
    refused([&] { decoder.prefill(tokens); });
    refused([&] { decoder.step(1); });
    refused([&] { decoder.generate(std::span<const Token>(tokens), Greedy{}, Seed{1}, 2); });
    refused([&] { generation.begin(); });
    refused([&] { decoder.restore(state); });
    refused([&] { decoder.reset(); });
    refused([&] { decoder.visit_routers([](const RouterReport&) {}); });
  });
  CHECK(shown == 2);
  CHECK_NOTHROW(decoder.step(1));
}

TEST_CASE("checkpoints written while another thread trains are whole or refused", "[model]") {
  const test::Folder folder;
  const TokenBatch batch{tokens, tokens, {2, 6}};
  Model<Net> model(Seed{1}), other(Seed{2});
  Trainer trainer(model), resumed(other);
  const auto step = [&] { return trainer.step(batch).applied; };
  const auto save = [&] {
    save_checkpoint(folder / "run", trainer);
    load_checkpoint(folder / "run", resumed);  // throws std::runtime_error if the file does not match its checksum
    return true;
  };
  CHECK_THAT(refusal(step, save), test::Contains("the trainer is in the middle of another call"));
}
