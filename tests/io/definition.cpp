// Files record the definition and the run that they were written by.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

using Net = test::TrainedNet;

/// A user-defined schedule.
struct Halving {
  double factor = 0.5;
  void check() const {}
  double operator()(Index step) const { return std::pow(factor, static_cast<double>(step)); }
};

/// A tenth of the rate from a step on.
struct StepDecay {
  Index from = 1;
  void check() const {}
  double operator()(Index step) const { return step < from ? 1 : 0.1; }
};

}  // namespace

TEST_CASE("a file of the same shapes but another definition is opened only on request", "[io]") {
  // Definitions that differ from Net, but not in their tensors.
  using Activation =
      LanguageModel<Vocabulary<11>, Width<8>, Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>, Gelu>>>;
  using Smooth = LanguageModel<Vocabulary<11>, Width<8>, PreNorm<RmsNorm<Epsilon<1, 1000>>>,
                               Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;
  using TwoExperts =
      LanguageModel<Vocabulary<11>, Width<8>, Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>, TopK<2>>>>;
  // Equivalent definitions with another spelling, and those with other auxiliary losses.
  using Reordered = LanguageModel<Width<8>, Vocabulary<11>, Mamba<State<3>, Expand<2>>, Moe<Hidden<12>, Experts<4>>,
                                  Mamba<State<3>>, Moe<Experts<4>, Hidden<12>, BalanceLoss<1, 7>>>;
  const test::Folder folder;
  const auto path = folder / "model";
  const Model<Net> model(Seed{4});
  save(model, path, {{"mood", "good"}});
  CHECK(SafetensorsFile(path).metadata().at("mood") == "good");
  const auto agrees = [&](const auto& other) {
    return std::equal(model.parameters().begin(), model.parameters().end(), other.parameters().begin());
  };
  CHECK(agrees(load<Reordered>(path)));
  const auto check = [&]<class Other>(const Model<Other>&) {
    INFO(spelling<Other>());
    CHECK_THROWS_WITH(load<Other>(path), Contains(spelling<Net>()) && Contains(spelling<Other>()) &&
                                             Contains("OtherDefinition::accepted"));
    CHECK(agrees(load<Other>(path, OtherDefinition::accepted)));
  };
  check(Model<Activation>(Uninitialised{}));
  check(Model<Smooth>(Uninitialised{}));
  check(Model<TwoExperts>(Uninitialised{}));

  // A file without a definition, an older one or another program's, is accepted.
  save_safetensors(folder / "foreign", detail::parameter_tensors<Net, float>(model.parameters()));
  CHECK(agrees(load<Activation>(folder / "foreign")));
}

TEST_CASE("resuming a checkpoint as another run is refused with a message", "[io]") {
  const test::Folder folder;
  const auto path = folder / "run";
  const AdamW optimizer{.learning_rate = 2e-3, .weight_decay = 0.05};
  const Cosine rate{.warmup = 2, .steps = 12};
  const TrainerOptions options{.clip_norm = 0.5};
  Model<Net> model(Seed{1});
  Trainer trainer(model, optimizer, rate, options);
  save_checkpoint(path, trainer, {}, {{"mood", "good"}});

  Model<Net> other(Seed{2});
  const auto refused = [&](auto resumed, const std::string& stored, const std::string& wanted) {
    const Model<Net> before(Seed{2});
    INFO(wanted);
    CHECK_THROWS_WITH(load_checkpoint(path, resumed),
                      Contains(stored) && Contains("allowed: " + wanted) && Contains("OtherRun::accepted"));
    CHECK(std::equal(before.parameters().begin(), before.parameters().end(), other.parameters().begin()));
    load_checkpoint(path, resumed, OtherRun::accepted);
    CHECK(std::equal(model.parameters().begin(), model.parameters().end(), other.parameters().begin()));
    other.write(before.parameters());
  };
  const std::string adam = "AdamW{learning_rate 0.002, beta1 0.9, beta2 0.95, epsilon 1e-08, weight_decay 0.05}";
  AdamW changed = optimizer;
  changed.learning_rate = 0.003;
  refused(Trainer(other, changed, rate, options), "the optimizer it was trained with is " + adam,
          "AdamW{learning_rate 0.003, beta1 0.9, beta2 0.95, epsilon 1e-08, weight_decay 0.05}");
  for (double AdamW::*field : {&AdamW::beta1, &AdamW::beta2, &AdamW::epsilon, &AdamW::weight_decay}) {
    changed = optimizer;
    changed.*field = 0.0625;
    refused(Trainer(other, changed, rate, options), adam, "AdamW{learning_rate 0.002, ");
  }
  changed = optimizer;
  changed.decay = Decay::everything;
  refused(Trainer(other, changed, rate, options), adam,
          "AdamW{learning_rate 0.002, beta1 0.9, beta2 0.95, epsilon 1e-08, weight_decay 0.05, decay everything}");
  const std::string cosine = "the schedule it was trained with is Cosine{warmup 2, steps 12, floor 0.1}";
  refused(Trainer(other, optimizer, Cosine{.warmup = 3, .steps = 12}, options), cosine,
          "Cosine{warmup 3, steps 12, floor 0.1}");
  refused(Trainer(other, optimizer, Cosine{.warmup = 2, .steps = 13}, options), cosine, "Cosine{warmup 2, steps 13, ");
  refused(Trainer(other, optimizer, Cosine{.warmup = 2, .steps = 12, .floor = 0.2}, options), cosine,
          "Cosine{warmup 2, steps 12, floor 0.2}");
  refused(Trainer(other, optimizer, Constant{.warmup = 2}, options), cosine, "Constant{warmup 2}");
  refused(Trainer(other, optimizer, rate, TrainerOptions{.clip_norm = 1}), "clip_norm 0.5, carry_states false",
          "clip_norm 1, carry_states false");
  refused(Trainer(other, optimizer, rate, TrainerOptions{.clip_norm = 0.5, .carry_states = true}),
          "clip_norm 0.5, carry_states false", "clip_norm 0.5, carry_states true");

  // Properties that do not affect the run may change: memory, threads, the grouping into batches.
  Cpu cpu(Threads{2});
  Trainer more(other, cpu, optimizer, rate, TrainerOptions{.largest = {2, 5}, .clip_norm = 0.5});
  CHECK(load_checkpoint(path, more).metadata == std::map<std::string, std::string>{{"mood", "good"}});

  // An older one, which does not record this, is resumed.
  const SafetensorsFile file(path);
  std::vector<TensorSource> tensors;
  for (const TensorEntry& tensor : file.tensors()) {
    tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
  }
  auto metadata = file.metadata();
  for (const char* key : {"optimizer", "schedule", "options", "definition"}) {
    CHECK(metadata.erase(std::string("moe_mamba.training.") + key) == 1);
  }
  CHECK(metadata.erase("moe_mamba.definition") == 1);
  save_safetensors(folder / "older", tensors, detail::with_checksum(metadata, tensors));
  Trainer plain(other);
  load_checkpoint(folder / "older", plain);
}

TEST_CASE("a checkpoint detects another definition, other auxiliary losses and another user-defined schedule", "[io]") {
  using Smooth = LanguageModel<Vocabulary<11>, Width<8>, PreNorm<RmsNorm<Epsilon<1, 1000>>>,
                               Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;
  const test::Folder folder;
  Model<Net> model(Seed{1}), other(Seed{2});
  const auto half = [](double factor) { return Halving{factor}; };
  Trainer trainer(model, AdamW{}, half(0.5)), same(other, AdamW{}, half(0.5)), faster(other, AdamW{}, half(0.25));
  save_checkpoint(folder / "run", trainer);
  load_checkpoint(folder / "run", same);
  CHECK_THROWS_WITH(load_checkpoint(folder / "run", faster),
                    Contains("the schedule it was trained with is " + detail::shown_name<Halving>() +
                             " with the factors 1, 0.125, "));
  CHECK(detail::run_fields(trainer)[3].text == spelling<Net>(AuxiliaryLosses::spelled));

  Model<Smooth> smooth(Seed{3});
  Trainer smooth_trainer(smooth, AdamW{}, half(0.5));
  CHECK_THROWS_WITH(load_checkpoint(folder / "run", smooth_trainer),
                    Contains(spelling<Net>()) && Contains(spelling<Smooth>()) && Contains("OtherRun::accepted"));
  load_checkpoint(folder / "run", smooth_trainer, OtherRun::accepted);
  CHECK(std::equal(model.parameters().begin(), model.parameters().end(), smooth.parameters().begin()));
}

TEST_CASE("a user-defined schedule that differs from some step on is another one", "[io]") {
  const test::Folder folder;
  Model<Net> model(Seed{1}), other(Seed{2});
  const auto rate = [](Index from) { return StepDecay{from}; };
  for (const Index from : {3, 7, 16, 100, 30'000, 1'000'000, 15'000'000}) {
    Trainer trainer(model, AdamW{}, rate(from)), same(other, AdamW{}, rate(from));
    save_checkpoint(folder / "run", trainer);
    load_checkpoint(folder / "run", same);
    for (const Index later : {from + 1 + from / 8, from + from / 3 + 1, 2 * from}) {
      INFO(from << " and " << later);
      Trainer slower(other, AdamW{}, rate(later));
      CHECK_THROWS_WITH(load_checkpoint(folder / "run", slower),
                        Contains("the schedule it was trained with is ") ||
                            Contains("the fingerprint of its schedule's factors is "));
      load_checkpoint(folder / "run", slower, OtherRun::accepted);
    }
  }

  // An older file has a few factors only, which are compared.
  Trainer trainer(model, AdamW{}, rate(30'000)), slower(other, AdamW{}, rate(40'000)), faster(other, AdamW{}, rate(9));
  save_checkpoint(folder / "run", trainer);
  const SafetensorsFile file(folder / "run");
  CHECK_THROWS_WITH(load_checkpoint(folder / "run", slower),
                    Contains("the fingerprint of its schedule's factors is ") &&
                        Contains(" in the steps 0 to 16, 18, 20 and so on, 8 an octave, to 16777216; allowed: "));
  std::vector<TensorSource> tensors;
  for (const TensorEntry& tensor : file.tensors()) {
    tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
  }
  auto metadata = file.metadata();
  CHECK(metadata.erase("moe_mamba.training.schedule_samples") == 1);
  save_safetensors(folder / "older", tensors, detail::with_checksum(metadata, tensors));
  load_checkpoint(folder / "older", slower);
  CHECK_THROWS_WITH(load_checkpoint(folder / "older", faster),
                    Contains("the schedule it was trained with is " + detail::shown_name<StepDecay>()));
}

TEST_CASE("an accepted run drops carried states of another definition", "[io]") {
  using Near = LanguageModel<Vocabulary<11>, Width<8>, Attention<Heads<2>, Context<4>>>;
  using Far = LanguageModel<Vocabulary<11>, Width<8>, Attention<Heads<2>, Context<7>>>;
  const test::Folder folder;
  const std::vector<Token> tokens{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const TokenBatch batch{tokens, tokens, {2, 5}}, next{tokens, tokens, {2, 5}, true};
  const auto check = [&]<class From, class To>(Model<From> model, Model<To> other, bool from, bool to) {
    Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = from});
    Trainer resumed(other, AdamW{}, Constant{}, TrainerOptions{.carry_states = to});
    resumed.step(batch);
    trainer.step(batch);
    save_checkpoint(folder / "run", trainer);
    CHECK((SafetensorsFile(folder / "run").find("training.states") != nullptr) == from);
    CHECK_THROWS_WITH(load_checkpoint(folder / "run", resumed), Contains("OtherRun::accepted"));
    load_checkpoint(folder / "run", resumed, OtherRun::accepted);
    CHECK(resumed.progress().states.empty());
    CHECK(std::ranges::equal(model.parameters(), other.parameters()));
    const double fresh = resumed.evaluate(batch).prediction;
    CHECK(resumed.step(next).loss == fresh);  // starts from zero states
  };
  check(Model<Net>(Seed{1}), Model<Net>(Seed{2}), true, false);
  check(Model<Net>(Seed{1}), Model<Net>(Seed{2}), false, true);
  check(Model<Near>(Seed{1}), Model<Far>(Seed{2}), true, true);

  Model<Net> model(Seed{1}), other(Seed{2});
  Trainer trainer(model, AdamW{}, Constant{}, TrainerOptions{.carry_states = true});
  Trainer faster(other, AdamW{.learning_rate = 0.5}, Constant{}, TrainerOptions{.carry_states = true});
  trainer.step(batch);
  save_checkpoint(folder / "run", trainer);
  load_checkpoint(folder / "run", faster, OtherRun::accepted);
  CHECK(std::ranges::equal(faster.progress().states, trainer.progress().states));
  CHECK_FALSE(faster.progress().states.empty());
}

TEST_CASE("a checkpoint records the position in its windows, which other windows refuse", "[io]") {
  const test::Folder folder;
  const std::vector<unsigned char> text(100, 1);
  Model<Net> model(Seed{1});
  Trainer trainer(model);
  const auto check = [&](auto batches, auto others) {
    batches.next();
    save_checkpoint(folder / "run", trainer, batches.state());
    const WindowsState state = load_checkpoint(folder / "run", trainer).windows;
    CHECK(state == batches.state());
    CHECK_THROWS_WITH(others.restore(state), Contains("state."));
  };
  check(windows(text, Length{5}, Batch{2}, Seed{3}), windows(text, Length{6}, Batch{2}, Seed{3}));
  check(sequential_windows(text, Length{5}, Batch{2}), sequential_windows(text, Length{5}, Batch{3}));
}
