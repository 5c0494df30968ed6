// Training models of Mamba blocks with experts in their projections, and resuming from files.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

template <class... Blocks>
using Net = LanguageModel<Vocabulary<11>, Width<8>, Blocks...>;
template <class... Options>
using Experts4 = Mamba<State<3>, InputExperts<4>, GateExperts<4>, OutputExperts<4>, Options...>;

using OneRouter = Net<Repeat<2, Experts4<TopK<2>>>>;
using RouterEach =
    Net<Mamba<State<3>, InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters, Hidden<12>, Capacity<5, 4>>,
        Mamba<State<3>, OutputExperts<4>, SeparateRouters, Hidden<12>>>;

std::vector<unsigned char> pattern() {
  std::vector<unsigned char> text;
  for (int i = 0; i < 5000; ++i) text.push_back(static_cast<unsigned char>((i * i + i / 7) % 11));
  return text;
}

template <class Definition>
void check_learns(int routers) {
  const auto text = pattern();
  auto batches = windows(text, Length{32}, Batch{8}, Seed{5});
  Model<Definition> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 10, .steps = 150});
  const double first = trainer.step(batches.next()).loss;
  double last = 0;
  for (int i = 0; i < 149; ++i) last = trainer.step(batches.next()).loss;
  CHECK(first == Approx(std::log(11.0)).epsilon(0.05));
  CHECK(last < 0.5 * first);
  int count = 0;
  trainer.visit_routers([&](const RouterReport& report) {
    ++count;
    CHECK(*std::min_element(report.load.begin(), report.load.end()) > 0);
  });
  CHECK(count == routers);
}

template <class Definition, class S>
std::vector<S> parameters_of_model(const Model<Definition, S>& model) {
  return {model.parameters().begin(), model.parameters().end()};
}

template <class Definition, class S>
void check_resumes() {
  const test::Folder folder;
  const auto text = pattern();
  const auto data = [&] { return sequential_windows(text, Length{11}, Batch{2}); };
  constexpr Cosine rate{.warmup = 2, .steps = 12};
  const TrainerOptions options{.carry_states = true};
  Model<Definition, S> model(Seed{1}), other(Seed{99});
  Trainer trainer(model, AdamW{}, rate, options), again(other, AdamW{}, rate, options);
  auto batches = data(), rest = data();
  for (int i = 0; i < 4; ++i) trainer.step(batches.next());
  save_checkpoint(folder / "run", trainer, batches.state());
  for (int i = 0; i < 4; ++i) trainer.step(batches.next());
  rest.restore(load_checkpoint(folder / "run", again).windows);
  for (int i = 0; i < 4; ++i) again.step(rest.next());
  CHECK((parameters_of_model(model) == parameters_of_model(other)));
  save(model, folder / "model");
  CHECK((parameters_of_model(load<Definition, S>(folder / "model")) == parameters_of_model(model)));
}

/// Updates and decoding on reserved memory; the parameters after them.
template <class Definition, class S>
std::vector<S> allocates_nothing(int threads) {
  const auto text = pattern();
  auto batches = sequential_windows(text, Length{70}, Batch{2});
  Cpu device(Threads{threads});
  Model<Definition, S> model(Seed{1});
  Trainer trainer(model, device, AdamW{}, Constant{}, TrainerOptions{.largest = {2, 70}, .carry_states = true});
  Decoder decoder(model, device, DecoderOptions{.chunk = 16});
  const std::vector<Token> prompt(50, 3);
  const test::AllocationCounter counter;
  for (int i = 0; i < 3; ++i) trainer.step(batches.next());
  trainer.evaluate(batches.next());
  decoder.prefill(prompt);
  decoder.step(3);
  CHECK(counter.count() == 0);
  return parameters_of_model(model);
}

template <class Definition, class S>
void check_threads() {
  const auto one = allocates_nothing<Definition, S>(1);
  CHECK((allocates_nothing<Definition, S>(2) == one));
  CHECK((allocates_nothing<Definition, S>(3) == one));
}

}  // namespace

TEST_CASE(
    "Models with experts inside Mamba blocks train and decode without allocations, on any number of threads alike",
    "[train][mamba][moe]") {
  check_threads<OneRouter, float>();
  check_threads<OneRouter, bfloat16>();
  check_threads<RouterEach, float>();
}

TEST_CASE("Models with experts inside Mamba blocks learn a pattern and use all of the experts", "[train][mamba][moe]") {
  check_learns<OneRouter>(2);
  check_learns<RouterEach>(4);
}

TEST_CASE("Models with experts inside Mamba blocks resume from a checkpoint to the bit", "[train][mamba][moe]") {
  check_resumes<OneRouter, float>();
  check_resumes<OneRouter, bfloat16>();
  check_resumes<RouterEach, float>();
}

TEST_CASE("A file of experts inside a Mamba block is refused for a definition with other experts",
          "[train][mamba][moe]") {
  // The first three have the same tensors; of the others names or shapes differ.
  using Written = Net<Experts4<TopK<2>>>;
  const test::Folder folder;
  const auto path = folder / "model";
  save(Model<Written>(Seed{4}), path);
  CHECK(spelling<Written>().find("InputExperts<4>, GateExperts<4>, OutputExperts<4>, TopK<2>") != std::string::npos);
  CHECK_NOTHROW(load<Net<Experts4<TopK<2>, SharedRouter, BalanceLoss<0>>>>(path));
  const auto check = [&]<class Other>(std::type_identity<Other>, bool same_tensors) {
    INFO(spelling<Other>());
    CHECK_THROWS_WITH(load<Other>(path), Contains(spelling<Written>()) && Contains(spelling<Other>()));
    if (same_tensors) {
      CHECK_NOTHROW(load<Other>(path, OtherDefinition::accepted));
    } else {
      CHECK_THROWS_WITH(load<Other>(path, OtherDefinition::accepted), Contains("mixer."));
    }
  };
  check(std::type_identity<Net<Experts4<>>>(), true);
  check(std::type_identity<Net<Experts4<TopK<2>, TopKThenSoftmax>>>(), true);
  check(std::type_identity<Net<Experts4<TopK<2>, Capacity<1>>>>(), true);
  check(std::type_identity<Net<Experts4<TopK<2>, SeparateRouters>>>(), false);
  check(std::type_identity<Net<Experts4<TopK<2>, Hidden<12>>>>(), false);
  check(std::type_identity<Net<Mamba<State<3>, GateExperts<4>, OutputExperts<4>, TopK<2>>>>(), false);
  check(std::type_identity<Net<Mamba<State<3>>>>(), false);
}
