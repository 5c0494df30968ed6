// Accumulated batches equal one batch of all their targets, however the targets are distributed over them.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/train/packing.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

using Plain = test::UnbalancedNet;  // a balance loss is a product of means, which is not additive
using Balanced = test::OddNet;
using Filter = test::FilterNet;
constexpr TrainerOptions unclipped{.clip_norm = 0};

struct Drawn {
  std::vector<Token> inputs, targets;
};

/// A sequence of 0 to 30 tokens, of whose targets about half are masked, or all.
Drawn draw_sequence(Random& random) {
  Drawn drawn;
  const auto length = random.below(31);
  const bool masked = random.below(5) == 0;
  for (std::uint64_t i = 0; i < length; ++i) {
    drawn.inputs.push_back(static_cast<Token>(random.below(11)));
    drawn.targets.push_back(masked || random.below(2) == 0 ? masked_target : static_cast<Token>(random.below(11)));
  }
  return drawn;
}

}  // namespace

TEST_CASE("random batches, accumulated, equal the batch of all their sequences", "[train]") {
  Random random(Seed{3});
  for (int run = 0; run < 40; ++run) {
    test::ModelOf<Plain, double> one(Seed{1}), other(Seed{1});
    Trainer apart(one, AdamW{}, Constant{}, unclipped), together(other, AdamW{}, Constant{}, unclipped);
    for (int update = 0; update < 2; ++update) {
      PackedBatch all;
      Losses mean;
      const auto batches = 1 + random.below(5);
      for (std::uint64_t b = 0; b < batches; ++b) {
        PackedBatch part;
        const auto sequences = 1 + random.below(4);
        for (std::uint64_t i = 0; i < sequences; ++i) {
          const Drawn drawn = draw_sequence(random);
          part.add(drawn.inputs, drawn.targets);
          all.add(drawn.inputs, drawn.targets);
        }
        mean += apart.evaluate(part.batch());
        apart.accumulate(part.batch());
      }
      const Losses evaluated = together.evaluate(all.batch());
      const StepReport a = apart.update(), b = together.step(all.batch());
      CHECK(a.targets == b.targets);
      CHECK(a.applied == b.applied);
      CHECK(a.applied == (a.targets > 0));
      CHECK(a.loss == Approx(b.loss).epsilon(1e-12));
      CHECK(a.gradient_norm == Approx(b.gradient_norm).epsilon(1e-10));
      CHECK(mean.prediction == Approx(evaluated.prediction).epsilon(1e-12));
      CHECK(mean.targets == evaluated.targets);
    }
    CHECK(apart.steps() == together.steps());
    CHECK(test::relative_error(test::numbers(one), test::numbers(other)) < 1e-9);
  }
}

TEST_CASE("series of different lengths, accumulated, give the mean over all numbers", "[train]") {
  const auto numbers = test::uniform<double>(40, 1), goals = test::uniform<double>(40, 2);
  test::ModelOf<Filter, double> one(Seed{1}), other(Seed{1});
  Trainer apart(one, AdamW{}, Constant{}, unclipped), together(other, AdamW{}, Constant{}, unclipped);
  const std::vector<Index> lengths{3, 37};
  const auto part = [&](std::size_t first, std::size_t count) {
    return SeriesBatch<double>{std::span(numbers).subspan(first, count),
                               std::span(goals).subspan(first, count),
                               {1, static_cast<Index>(count)}};
  };
  apart.accumulate(part(0, 3));
  apart.accumulate(part(3, 37));
  const StepReport a = apart.update(), b = together.step(SeriesBatch<double>{numbers, goals, Shape::packed(lengths)});
  CHECK(a.loss == Approx(b.loss).epsilon(1e-12));
  CHECK(a.gradient_norm == Approx(b.gradient_norm).epsilon(1e-10));
  CHECK(a.targets == 40);
}

TEST_CASE("routers' losses of accumulated batches weigh by targets", "[train]") {
  test::ModelOf<Balanced, double> model(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, unclipped);
  const auto tokens = std::vector<Token>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5};
  const auto part = [&](std::size_t first, std::size_t count) {
    const auto chunk = std::span(tokens).subspan(first, count);
    return TokenBatch{chunk, chunk, {1, static_cast<Index>(count)}};
  };
  const Losses small = trainer.accumulate(part(0, 3)), large = trainer.accumulate(part(3, 13));
  REQUIRE(small.auxiliary > 0);
  REQUIRE(small.auxiliary != large.auxiliary);
  CHECK(trainer.update().auxiliary == Approx((3 * small.auxiliary + 13 * large.auxiliary) / 16).epsilon(1e-12));
}

TEST_CASE("a batch without targets gives no update, and reports it", "[train]") {
  const std::vector<Token> tokens(6, 2), masked(6, masked_target);
  test::ModelOf<Balanced, double> model(Seed{1});
  Trainer trainer(model);
  const auto check_nothing = [&](const StepReport& report) {
    CHECK_FALSE(report.applied);
    CHECK(report.targets == 0);
    CHECK(report.loss == 0);
    CHECK(report.auxiliary == 0);
    CHECK(report.gradient_norm == 0);
  };
  trainer.step(TokenBatch{tokens, tokens, {2, 3}});  // nonzero moments, which alone would change the parameters
  const auto before = test::numbers(model);
  check_nothing(trainer.step(TokenBatch{tokens, masked, {2, 3}}));
  check_nothing(trainer.step(TokenBatch{{}, {}, {2, 0}}));
  check_nothing(trainer.step(TokenBatch{{}, {}, {0, 3}}));
  check_nothing(trainer.step(PackedBatch().batch()));
  CHECK(trainer.evaluate(TokenBatch{{}, {}, {0, 3}}).targets == 0);
  trainer.accumulate(TokenBatch{tokens, masked, {2, 3}});
  check_nothing(trainer.update());
  CHECK(trainer.steps() == 1);
  CHECK(test::numbers(model) == before);
  CHECK_THROWS_AS(trainer.update(), std::logic_error);
  CHECK(trainer.step(TokenBatch{tokens, tokens, {2, 3}}).applied);
}

TEST_CASE("carried states advance through a batch without targets", "[train]") {
  const std::vector<Token> first{1, 2, 3, 4}, second{5, 6, 7, 8}, masked(4, masked_target);
  test::ModelOf<Plain, double> model(Seed{1}), frozen(Seed{1});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  auto device = test::open();
  Workspace<Plain, double, test::Backend> workspace(device, {1, 4});
  States<Plain, double, test::Backend::Memory> states(1);
  frozen.loss(workspace, first, masked, {1, 4}, &states);
  const double expected = frozen.loss(workspace, second, second, {1, 4}, &states).prediction;
  CHECK_FALSE(trainer.step(TokenBatch{first, masked, {1, 4}}).applied);
  CHECK(trainer.step(TokenBatch{second, second, {1, 4}, true}).loss == Approx(expected).epsilon(1e-12));
}

TEST_CASE("progress between accumulate() and update() is refused, as the gradient would be lost", "[train]") {
  const std::vector<Token> tokens(6, 2);
  const TokenBatch batch{tokens, tokens, {2, 3}};
  const test::Folder folder;
  test::ModelOf<Plain, double> model(Seed{1});
  Trainer trainer(model);
  const auto refused = [&] {
    const std::string words =
        "progress() was called between accumulate() and update(); allowed: after update() or discard()";
    CHECK_THROWS_AS(trainer.progress(), std::logic_error);
    CHECK_THROWS_WITH(save_checkpoint(folder / "run", trainer), words);
    CHECK(folder.entries() == 0);
  };
  trainer.accumulate(batch);
  refused();
  trainer.accumulate(batch);
  refused();
  CHECK(trainer.update().targets == 12);  // what was accumulated is still there
  CHECK(trainer.progress().steps == 1);
  trainer.accumulate(batch);
  refused();
  trainer.discard();
  save_checkpoint(folder / "run", trainer);
  CHECK(folder.entries() == 1);
}
