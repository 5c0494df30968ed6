// Trainers on the caller's device and in the caller's memory, and work between gradient and update.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "model/passes.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Net = test::TrainedNet;
using Plain = test::UnbalancedNet;  // whose loss is just a sum over targets
using Memory = test::Backend::Memory;

template <class T>
std::vector<T> read(const Array<T, Memory>& array) {
  std::vector<T> values(array.size());
  array.read(values);
  return values;
}

}  // namespace

TEMPLATE_TEST_CASE("a trainer in the caller's memory behaves as one in its own", "[train]", bfloat16, float, double) {
  using S = TestType;
  using C = compute_t<S>;
  using TrainerType = Trainer<Net, S, test::Backend, Constant>;
  constexpr auto count = static_cast<std::size_t>(Net::parameters);
  const auto data = test::data<Net, C>({3, 5});
  const TokenBatch batch{data.inputs, data.targets, data.shape};
  test::ModelOf<Net, S> model(Seed{1}), twin(Seed{1});
  auto device = test::open(2);
  Workspace<Net, S, test::Backend> workspace(device, {3, 5}, Purpose::training);
  Array<C, Memory> gradients(count), first(count), second(count);
  Array<std::int16_t, Memory> remainder(TrainerType::keeps_remainder ? count : 0);
  first.write(std::vector<C>(count, C(7)));  // is cleared
  TrainerType borrowing(model, device, AdamW{}, Constant{}, {}, {&workspace, gradients, first, second, remainder});
  Trainer owning(twin, AdamW{}, Constant{});
  for (int step = 0; step < 3; ++step) CHECK(borrowing.step(batch).loss == owning.step(batch).loss);
  CHECK(test::numbers(model) == test::numbers(twin));
  const auto progress = owning.progress();
  CHECK(std::equal(progress.first_moment.begin(), progress.first_moment.end(), read(first).begin()));
  CHECK(std::equal(progress.second_moment.begin(), progress.second_moment.end(), read(second).begin()));
  CHECK(std::equal(progress.remainder.begin(), progress.remainder.end(), read(remainder).begin()));

  using test::Contains;
  const auto with = [&](auto memory) { TrainerType(model, device, AdamW{}, Constant{}, {}, memory); };
  Array<C, Memory> few(count - 1);
  CHECK_THROWS_WITH(with(typename TrainerType::MemoryType{.gradients = few}),
                    Contains("gradients.size() is " + std::to_string(count - 1)));
  auto other_device = test::open();
  Workspace<Net, S, test::Backend> reading(device, {3, 5}), elsewhere(other_device, {3, 5}, Purpose::training);
  CHECK_THROWS_WITH(with(typename TrainerType::MemoryType{.workspace = &reading}), Contains("inference"));
  CHECK_THROWS_WITH(with(typename TrainerType::MemoryType{.workspace = &elsewhere}), Contains("the trainer's"));
  const std::vector<Token> long_text(24, 1);
  CHECK_THROWS_WITH(borrowing.step(TokenBatch{long_text, long_text, {4, 6}}), Contains("0 to 3"));
}

TEST_CASE("states that a trainer carries are in the caller's memory if it is given", "[train]") {
  using TrainerType = Trainer<Net, float, test::Backend, Constant>;
  constexpr auto size = static_cast<std::size_t>(Net::Body::state_size);
  const auto data = test::data<Net, float>({3, 5});
  const auto batch = [&](Index sequences, Index length, bool continues) {
    const auto part = [&](const std::vector<Token>& tokens) {
      return std::span<const Token>(tokens).first(static_cast<std::size_t>(sequences * length));
    };
    return TokenBatch{part(data.inputs), part(data.targets), {sequences, length}, continues};
  };
  test::ModelOf<Net> model(Seed{1}), twin(Seed{1});
  auto device = test::open();
  const TrainerOptions options{.carry_states = true};
  Array<float, Memory> states(2 * size + 3);
  states.write(std::vector<float>(states.size(), 7.0f));
  TrainerType borrowing(model, device, AdamW{}, Constant{}, options, {.states = states});
  TrainerType owning(twin, AdamW{}, Constant{}, options);
  CHECK(read(states) == std::vector<float>(states.size(), 7.0f));
  const auto step = [&](Index sequences, Index length, bool continues) {
    const TokenBatch next = batch(sequences, length, continues);
    CHECK(borrowing.step(next).loss == owning.step(next).loss);
    const auto kept = read(states);
    const auto progress = owning.progress();
    CHECK(progress.states.size() == static_cast<std::size_t>(sequences) * size);
    CHECK(std::equal(progress.states.begin(), progress.states.end(), kept.begin()));
    CHECK(std::equal(kept.end() - 3, kept.end(), std::vector<float>(3, 7.0f).begin()));
  };
  step(2, 5, false);
  step(2, 4, true);
  step(1, 5, false);
  step(1, 3, true);
  step(2, 2, false);

  // Too many sequences are refused, in a batch and in a restored run, without side effects.
  using test::Contains;
  const auto refused =
      "memory.states.size() is " + std::to_string(2 * size + 3) + "; allowed: " + std::to_string(3 * size);
  CHECK_THROWS_WITH(borrowing.step(batch(3, 5, false)), Contains(refused));
  test::ModelOf<Net> third(Seed{2});
  TrainerType larger(third, AdamW{}, Constant{}, options);
  larger.step(batch(3, 5, false));
  CHECK_THROWS_WITH(borrowing.restore(larger.progress()), Contains(refused));
  step(2, 3, true);

  TrainerType resumed(model, device, AdamW{}, Constant{}, options, {.states = states});
  const auto progress = owning.progress();
  resumed.restore(progress);
  CHECK(std::equal(progress.states.begin(), progress.states.end(), read(states).begin()));
  CHECK_THROWS_WITH(TrainerType(model, device, AdamW{}, Constant{}, {}, {.states = states}),
                    Contains("0 without carry_states"));
  CHECK_THROWS_WITH(
      TrainerType(model, device, AdamW{}, Constant{}, {.largest = {3, 5}, .carry_states = true}, {.states = states}),
      Contains(refused));
}

TEST_CASE("overlapping parts of a trainer's memory are refused with a message before anything is written", "[train]") {
  using TrainerType = Trainer<Net, bfloat16, test::Backend, Constant>;
  using MemoryType = TrainerType::MemoryType;
  constexpr auto count = static_cast<std::size_t>(Net::parameters);
  test::ModelOf<Net, bfloat16> model(Seed{1});
  const auto before = test::numbers(model);
  auto device = test::open();
  const std::size_t bytes = Workspace<Net, bfloat16, test::Backend>::bytes(device, {1, 2}, Purpose::training);
  // Each array has half of the memory; if one begins slightly before its half, it overlaps the other.
  const std::size_t half = std::max(bytes, count * sizeof(float)) / 64 * 64 + 64;
  Array<std::byte, Memory> memory(2 * half);
  const std::vector<std::byte> sevens(memory.size(), std::byte{7});
  const auto block = [&](std::size_t offset, std::size_t size) { return memory.span().subspan(offset, size); };
  const auto numbers = [&]<class T>(std::size_t offset, T) {
    return SpanOf<T, Memory>(reinterpret_cast<T*>(block(offset, count * sizeof(T)).data()), count);
  };
  const auto with = [&](int part, std::size_t offset, MemoryType given) {
    if (part == 0) given.gradients = numbers(offset, 0.0f);
    if (part == 1) given.first_moment = numbers(offset, 0.0f);
    if (part == 2) given.second_moment = numbers(offset, 0.0f);
    if (part == 3) given.remainder = numbers(offset, std::int16_t{0});
    if (part == 4) given.states = numbers(offset, 0.0f);
    return given;
  };
  const char* const names[]{"memory.gradients", "memory.first_moment", "memory.second_moment", "memory.remainder",
                            "memory.states"};
  const auto make = [&](const MemoryType& given) {
    TrainerType(model, device, AdamW{}, Constant{}, {.carry_states = true}, given);
  };
  const auto refuses = [&](const MemoryType& given, const std::string& text) {
    memory.write(sevens);
    CHECK_THROWS_WITH(make(given), test::Contains(text));
    CHECK(read(memory) == sevens);
  };
  for (int one = 0; one < 5; ++one) {
    for (int other = one + 1; other < 5; ++other) {
      const std::string text = std::string(names[other]) + " is overlapping " + names[one];
      const std::size_t size = count * (one == 3 ? sizeof(std::int16_t) : sizeof(float));
      refuses(with(other, 0, with(one, 0, {})), text);
      refuses(with(other, (size - 1) / 4 * 4, with(one, 0, {})), text);
      CHECK_NOTHROW(make(with(other, half, with(one, 0, {}))));
    }
    Workspace<Net, bfloat16, test::Backend> workspace(device, {1, 2}, Purpose::training, block(0, bytes));
    refuses(with(one, 64, {.workspace = &workspace}), std::string(names[one]) + " is overlapping memory.workspace");
    memory.write(sevens);
    CHECK_NOTHROW(make(with(one, half, {.workspace = &workspace})));
  }
  // The 16-bit remainder has the size of bfloat16 parameters.
  MemoryType parameters;
  parameters.remainder = {reinterpret_cast<std::int16_t*>(model.parameters().data()), count};
  refuses(parameters, "memory.remainder is overlapping the model's parameters");
  CHECK(test::numbers(model) == before);
  // An error in one array is reported before another is cleared.
  MemoryType given = with(0, 0, {});
  given.first_moment = numbers(half, 0.0f).first(count - 1);
  refuses(given, "first_moment.size() is");
}

TEST_CASE("gradients between accumulate() and update() are those of the model, and changes to them take effect",
          "[train]") {
  const auto data = test::data<Net, double>({3, 5});
  const TokenBatch batch{data.inputs, data.targets, data.shape};
  test::ModelOf<Net, double> model(Seed{1}), twin(Seed{1});
  auto device = test::open();
  Trainer trainer(model, device, AdamW{}, Constant{}, {.clip_norm = 0}), other(twin, device);
  const Losses losses = trainer.accumulate(batch);
  CHECK(trainer.targets() == losses.targets);

  Workspace<Net, double, test::Backend> workspace(device, {3, 5}, Purpose::training);
  Array<double, Memory> gradients(static_cast<std::size_t>(Net::parameters));
  const std::span<const Token> inputs(data.inputs), targets(data.targets);
  model.gradient(workspace, inputs, targets, data.shape, gradients);
  auto expected = read(gradients);
  std::vector<double> actual(expected.size());
  Memory::read(actual.data(), trainer.gradients().data(), actual.size() * sizeof(double));
  for (double& value : actual) value *= trainer.gradient_scale();
  CHECK(test::relative_error(actual, expected) < 1e-14);

  // With the sign reversed, the first moment is that of the reversed gradient.
  for (double& value : actual) value = -value;
  Memory::write(trainer.gradients().data(), actual.data(), actual.size() * sizeof(double));
  CHECK(trainer.update().applied);
  other.step(batch);
  const auto reversed = trainer.progress(), plain = other.progress();
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    largest = std::max(largest, std::abs(reversed.first_moment[i] + 0.1 * expected[i]));
  }
  CHECK(largest < 1e-14);
  CHECK(plain.first_moment.size() == expected.size());
}

TEST_CASE("trainers that add up their gradients equal one trainer of all their batches", "[train]") {
  for (const bool second_is_masked : {false, true}) {
    const auto all = test::data<Plain, double>({4, 5});
    auto targets = all.targets;
    if (second_is_masked) std::fill(targets.begin() + 10, targets.end(), masked_target);
    const auto half = [&](const std::vector<Token>& tokens, std::size_t part) {
      return std::span<const Token>(tokens).subspan(10 * part, 10);
    };
    test::ModelOf<Plain, double> one(Seed{1}), two(Seed{1}), whole(Seed{1});
    Trainer first(one), second(two), together(whole);
    const Losses a = first.accumulate(TokenBatch{half(all.inputs, 0), half(targets, 0), {2, 5}});
    const Losses b = second.accumulate(TokenBatch{half(all.inputs, 1), half(targets, 1), {2, 5}});
    first.make_gradient_sum();
    second.make_gradient_sum();
    std::vector<double> sums(static_cast<std::size_t>(Plain::parameters)), others(sums.size());
    Memory::read(sums.data(), first.gradients().data(), sums.size() * sizeof(double));
    Memory::read(others.data(), second.gradients().data(), sums.size() * sizeof(double));
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += others[i];
    Memory::write(first.gradients().data(), sums.data(), sums.size() * sizeof(double));
    Memory::write(second.gradients().data(), sums.data(), sums.size() * sizeof(double));
    first.count_others(b);
    second.count_others(a);
    const StepReport expected = together.step(TokenBatch{all.inputs, targets, {4, 5}});
    for (const StepReport& report : {first.update(), second.update()}) {
      CHECK(std::abs(report.loss - expected.loss) < 1e-13);
      CHECK(std::abs(report.gradient_norm - expected.gradient_norm) < 1e-12);
      CHECK(report.targets == expected.targets);
    }
    // AdamW divides by the root of a square, which magnifies differences in rounding of gradients near zero.
    CHECK(test::relative_error(test::numbers(one), test::numbers(whole)) < 1e-9);
    CHECK(test::relative_error(test::numbers(two), test::numbers(whole)) < 1e-9);
  }
  test::ModelOf<Plain, double> model(Seed{1});
  Trainer trainer(model);
  CHECK_THROWS_AS(trainer.count_others({.targets = 1}), std::logic_error);
}

TEMPLATE_TEST_CASE("updates of the parts of an array equal the update of the whole", "[train]", bfloat16, float) {
  using S = TestType;
  constexpr Index count = Net::parameters;
  std::vector<float> numbers = test::uniform<float>(count, 5);
  Array<float, Memory> gradients(numbers.size());
  gradients.write(numbers);
  auto device = test::open(2);
  const auto updated = [&](Decay decay, const std::vector<Index>& cuts) {
    test::ModelOf<Net, S> model(Seed{1});
    Optimizer<Net, S, test::Backend> optimizer;
    for (Index number = 1; number <= 3; ++number) {
      optimizer.sum_squares(device, gradients.data());
      for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
        optimizer.update(device, model.parameters().data(), gradients.data(), AdamW{.decay = decay},
                         {.learning_rate = 1e-2, .number = number, .clip_norm = 1}, {cuts[i], cuts[i + 1]});
      }
    }
    optimizer.squares(device);  // waits
    return test::numbers(model);
  };
  const auto whole = updated(Decay::matrices, {0, count}), everything = updated(Decay::everything, {0, count});
  CHECK(everything != whole);
  Random random(Seed{9});
  for (int run = 0; run < 10; ++run) {
    std::vector<Index> cuts{0, count};
    for (int i = 0; i < 4; ++i) cuts.push_back(static_cast<Index>(random.below(static_cast<std::uint64_t>(count))));
    // A device's updates take 16 bytes at a time, for which parts begin at multiples of 64 elements there.
    if (!test::on_host) {
      for (Index& cut : cuts) cut = cut == count ? cut : cut / 64 * 64;
    }
    std::sort(cuts.begin(), cuts.end());
    CHECK(updated(Decay::matrices, cuts) == whole);
    CHECK(updated(Decay::everything, cuts) == everything);
  }
}
