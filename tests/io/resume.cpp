// Models and training runs that resume from files as if uninterrupted.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/io/checkpoint.hpp"
#include "moe_mamba/train/windows.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

using Net = test::TrainedNet;

std::vector<unsigned char> pattern(Index size) {
  std::vector<unsigned char> text(static_cast<std::size_t>(size));
  for (Index i = 0; i < size; ++i) text[static_cast<std::size_t>(i)] = static_cast<unsigned char>((i * i + i / 7) % 11);
  return text;
}

constexpr Cosine rate{.warmup = 2, .steps = 12};

template <class TrainerType>
std::vector<std::int16_t> remainders(const TrainerType& trainer) {
  const auto remainder = trainer.progress().remainder;
  return {remainder.begin(), remainder.end()};
}

template <class Definition, class S>
void check_continued() {
  const test::Folder folder;
  const auto path = folder.path() / "run.safetensors";
  const auto text = pattern(2000);
  for (const bool carried : {false, true}) {
    const TrainerOptions options{.carry_states = carried};
    const auto data = [&] { return sequential_windows(text, Length{11}, Batch{2}); };

    test::ModelOf<Definition, S> model(Seed{1});
    Trainer trainer(model, AdamW{}, rate, options);
    auto batches = data();
    for (int i = 0; i < 4; ++i) trainer.step(batches.next());
    save_checkpoint(path, trainer, batches.state(), {{"mood", "good \"äöü\""}});
    for (int i = 0; i < 4; ++i) trainer.step(batches.next());

    test::ModelOf<Definition, S> other(Seed{99});
    Trainer again(other, AdamW{}, rate, options);
    auto rest = data();
    const CheckpointInfo info = load_checkpoint(path, again);
    CHECK(info.metadata == std::map<std::string, std::string>{{"mood", "good \"äöü\""}});
    CHECK(again.steps() == 4);
    rest.restore(info.windows);
    for (int i = 0; i < 4; ++i) again.step(rest.next());
    CHECK(test::numbers(model) == test::numbers(other));
    CHECK(remainders(trainer) == remainders(again));
  }
}

}  // namespace

TEMPLATE_TEST_CASE("a run resumed from a checkpoint equals an uninterrupted one, bit for bit", "[io]", float, double,
                   bfloat16) {
  check_continued<Net, TestType>();
  check_continued<test::BalancedNet, TestType>();
}

TEST_CASE("The rate of selection biases, if there are any, is part of the run that a checkpoint records", "[io]") {
  const test::Folder folder;
  const auto other_rate = [&]<class Definition>(test::ModelOf<Definition> model) {
    const auto path = folder.path() / "run.safetensors";
    Trainer trainer(model, AdamW{}, rate, TrainerOptions{.selection_bias_rate = 0.25});
    save_checkpoint(path, trainer);
    Trainer again(model, AdamW{}, rate, TrainerOptions{.selection_bias_rate = 0.5});
    load_checkpoint(path, again, OtherRun::accepted);
    load_checkpoint(path, again);
  };
  other_rate(test::ModelOf<Net>(Seed{1}));
  CHECK_THROWS_WITH(other_rate(test::ModelOf<test::BalancedNet>(Seed{1})),
                    test::Contains("selection_bias_rate 0.25") && test::Contains("selection_bias_rate 0.5"));
}

TEST_CASE("random windows resume at their position", "[io]") {
  const test::Folder folder;
  const auto text = pattern(2000);
  auto batches = windows(text, Length{11}, Batch{2}, Seed{8});
  test::ModelOf<Net> model(Seed{1}), other(Seed{2});
  Trainer trainer(model), again(other);
  for (int i = 0; i < 3; ++i) trainer.step(batches.next());
  save_checkpoint(folder.path() / "c", trainer, batches.state());
  auto rest = windows(text, Length{11}, Batch{2});
  rest.restore(load_checkpoint(folder.path() / "c", again).windows);
  for (int i = 0; i < 3; ++i) {
    trainer.step(batches.next());
    again.step(rest.next());
  }
  CHECK(test::numbers(model) == test::numbers(other));
}

TEST_CASE("a saved model is loaded as it was, in its own and in other types", "[io]") {
  const test::Folder folder;
  const auto path = folder.path() / "model.safetensors";
  const test::ModelOf<Net> model(Seed{4});
  save(model, path);
  CHECK(test::numbers(load<Net, float, test::Backend>(path)) == test::numbers(model));
  const auto rounded = load<Net, bfloat16, test::Backend>(path);
  const auto widened = load<Net, double, test::Backend>(path);
  const auto values = test::numbers(model);
  CHECK(test::numbers(rounded) == test::converted<bfloat16>(values));
  CHECK(test::numbers(widened) == test::converted<double>(values));
  test::ModelOf<Net> target(Seed{5});
  load(target, path);
  CHECK(test::numbers(target) == test::numbers(model));
}

TEST_CASE("a model can be loaded from a checkpoint", "[io]") {
  const test::Folder folder;
  test::ModelOf<Net> model(Seed{4});
  Trainer trainer(model);
  save_checkpoint(folder.path() / "c", trainer);
  CHECK(test::numbers(load<Net, float, test::Backend>(folder.path() / "c")) == test::numbers(model));
}

TEST_CASE("Metadata with a reserved key are refused and no file is written", "[io]") {
  const test::Folder folder;
  const auto path = folder.path() / "run.safetensors";
  test::ModelOf<Net> model(Seed{1});
  Trainer trainer(model, AdamW{}, rate);
  for (const char* key : {"moe_mamba.step", "moe_mamba.definition", "moe_mamba.mine", "moe_mamba."}) {
    const auto message = test::Contains("metadata key is \"" + std::string(key) +
                                        "\"; allowed: any that does not begin with \"moe_mamba.\"");
    CHECK_THROWS_AS(save(model, path, {{key, "1"}}), std::invalid_argument);
    CHECK_THROWS_WITH(save(model, path, {{key, "1"}}), message);
    CHECK_THROWS_AS(save_checkpoint(path, trainer, {}, {{key, "1"}}), std::invalid_argument);
    CHECK_THROWS_WITH(save_checkpoint(path, trainer, {}, {{"mood", "good"}, {key, "1"}}), message);
  }
  CHECK(!std::filesystem::exists(path));
  const std::map<std::string, std::string> near = {{"moe_mamba", "1"}, {"moe_mambo.step", "2"}, {"step", "3"}};
  save_checkpoint(path, trainer, {}, near);
  CHECK(load_checkpoint(path, trainer).metadata == near);
}
