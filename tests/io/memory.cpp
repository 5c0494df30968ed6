// Files are read directly into their destination: resuming needs no more memory than training.
#include <algorithm>
#include <cstddef>

#include "moe_mamba/moe_mamba.hpp"
#include "support/allocations.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

// An embedding of 2^20 numbers, so that a second copy of anything would be noticed.
using Net =
    LanguageModel<Vocabulary<131'073>, Width<8>, FinalNorm<NoNorm>, Residual<NoNorm, Mamba<State<3>, StepRank<1>>>>;
using Small = LanguageModel<Vocabulary<3>, Width<1>, FinalNorm<NoNorm>, Residual<NoNorm, Mlp<Hidden<4>>>>;
constexpr std::size_t allowed = std::size_t{1} << 20;

}  // namespace

TEMPLATE_TEST_CASE("A checkpoint is read with less than a mebibyte beyond the training's memory", "[io]", float,
                   bfloat16) {
  static_assert(Net::parameters > Index{1} << 20);
  const test::Folder folder;
  const std::vector<Token> tokens = {1, 2, 3, 4, 5, 131'072};
  const TokenBatch batch{std::span(tokens).first(5), std::span(tokens).last(5), {1, 5}, true};
  const TrainerOptions options{.carry_states = true};
  Model<Net, TestType> model(Seed{1}), other(Seed{2});
  Trainer trainer(model, AdamW{}, Constant{}, options), resumed(other, AdamW{}, Constant{}, options);
  for (int i = 0; i < 2; ++i) trainer.step(batch);
  resumed.step(batch);
  save_checkpoint(folder / "run", trainer);
  save(model, folder / "model");
  {
    const test::AllocationCounter allocations;
    load_checkpoint(folder / "run", resumed);
    CHECK(allocations.bytes() < allowed);
  }
  CHECK(test::numbers(other) == test::numbers(model));
  for (int i = 0; i < 2; ++i) CHECK(resumed.step(batch).loss == trainer.step(batch).loss);
  CHECK(test::numbers(other) == test::numbers(model));
  {
    const test::AllocationCounter allocations;
    load(other, folder / "model");
    CHECK(allocations.bytes() < allowed);
  }
}

TEST_CASE("A checkpoint with misaligned numbers is read as well", "[io]") {
  static_assert(Small::parameters % 2 == 1);
  const test::Folder folder;
  const std::vector<Token> tokens = {1, 2, 0, 1};
  const TokenBatch batch{std::span(tokens).first(3), std::span(tokens).last(3), {1, 3}};
  Model<Small, bfloat16> model(Seed{1}), other(Seed{2});
  Trainer trainer(model), resumed(other);
  trainer.step(batch);
  save_checkpoint(folder / "run", trainer);
  const SafetensorsFile file(folder / "run");
  std::vector<TensorSource> tensors;  // the parameters in front, as older files have them
  for (const bool of_training : {false, true}) {
    for (const TensorEntry& tensor : file.tensors()) {
      if (tensor.name.starts_with("training.") != of_training) continue;
      tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
    }
  }
  save_safetensors(folder / "older", tensors, file.metadata());
  load_checkpoint(folder / "older", resumed);
  CHECK(test::numbers(other) == test::numbers(model));
  CHECK(resumed.step(batch).loss == trainer.step(batch).loss);
  CHECK(test::numbers(other) == test::numbers(model));
}

TEST_CASE("Out of memory, a save keeps the old file, and a load leaves model and trainer unchanged", "[io]") {
  const test::Folder folder;
  const std::vector<Token> tokens = {1, 2, 0, 1};
  const TokenBatch batch{std::span(tokens).first(3), std::span(tokens).last(3), {1, 3}};
  Model<Small, bfloat16> model(Seed{1}), other(Seed{2});
  const Model<Small, bfloat16> before(Seed{2});
  Trainer trainer(model), resumed(other);
  trainer.step(batch);
  save_checkpoint(folder / "run", trainer, {}, {{"mood", "good"}});
  save(model, folder / "model");
  const auto unchanged = [&](auto&) {
    REQUIRE(test::numbers(other) == test::numbers(before));
    REQUIRE(resumed.steps() == 0);
    REQUIRE(std::ranges::all_of(resumed.progress().first_moment, [](float moment) { return moment == 0; }));
  };
  const auto nothing = [] { return 0; };
  CHECK(test::fail_each_allocation(
            nothing, [&](int) { load(other, folder / "model"); }, unchanged) > 10);
  other.write(before.parameters());
  CHECK(test::fail_each_allocation(
            nothing, [&](int) { load_checkpoint(folder / "run", resumed); }, unchanged) > 10);
  CHECK(test::numbers(other) == test::numbers(model));

  const std::string run = test::read_bytes(folder / "run");
  const auto old_file = [&] {
    test::write_bytes(folder / "new", "old");
    return 0;
  };
  const auto kept = [&](int) {
    REQUIRE(test::read_bytes(folder / "new") == "old");
    REQUIRE(folder.entries() == 3);
  };
  const auto save_new = [&](int) { save_checkpoint(folder / "new", trainer, {}, {{"mood", "good"}}); };
  CHECK(test::fail_each_allocation(old_file, save_new, kept) > 10);
  CHECK(test::read_bytes(folder / "new") == run);
}

TEST_CASE("A trainer whose model was moved away is not partly restored", "[io]") {
  const test::Folder folder;
  Model<Small> model(Seed{1}), other(Seed{2});
  Trainer trainer(model), resumed(other);
  const std::vector<Token> tokens = {1, 2, 0, 1};
  trainer.step(TokenBatch{std::span(tokens).first(3), std::span(tokens).last(3), {1, 3}});
  save_checkpoint(folder / "run", trainer);
  const Model<Small> moved = std::move(other);
  CHECK_THROWS_AS(load_checkpoint(folder / "run", resumed), std::logic_error);
  CHECK(resumed.steps() == 0);
}
