// Calls that run out of memory, at any of their allocations: models and folders are unchanged.
#include "families/folders.hpp"
#include "support/allocations.hpp"

using namespace moe_mamba;
using Small = test::SmallMamba;

namespace {

template <class Model>
bool same(const Model& a, const Model& b) {
  return std::equal(a.parameters().begin(), a.parameters().end(), b.parameters().begin());
}

}  // namespace

TEST_CASE("A model is unchanged when there is no memory to load it", "[families]") {
  for (const char* fixture : {"mamba", "mamba_shards"}) {
    const Pretrained folder{test::fixture_folder(fixture)};
    const Model<Small> before(Seed{1});
    const long failures =
        test::fail_each_allocation([] { return Model<Small>(Seed{1}); }, [&](auto& model) { load(model, folder); },
                                   [&](const auto& model) { REQUIRE(same(model, before)); });
    CHECK(failures > 50);
  }
}

TEST_CASE("Opening and describing a folder can be retried after running out of memory", "[families]") {
  const auto nothing = [] { return 0; };
  const auto check = [](int) {};
  for (const char* fixture : {"mamba_shards", "mixtral_one_tensor", "jamba", "qwen2"}) {
    const auto folder = test::fixture_folder(fixture);
    std::string spelling;
    const long failures = test::fail_each_allocation(
        nothing, [&](int) { spelling = families::CheckpointFolder(folder).architecture().spelling(); }, check);
    CHECK(failures > 50);
    CHECK_FALSE(spelling.empty());
  }
}

TEST_CASE("A folder holds the old model or the new one when there is no memory to save", "[families]") {
  const test::Folder folder;
  const Pretrained pretrained{folder / "model"};
  const Model<Small> older(Seed{1}), newer(Seed{2});
  const long failures = test::fail_each_allocation(
      [&] {
        save(older, pretrained);
        return 0;
      },
      [&](int) { save(newer, pretrained); },
      [&](int) {
        const auto held = load<Small>(pretrained);
        REQUIRE((same(held, older) || same(held, newer)));
      });
  CHECK(failures > 50);
  CHECK(same(load<Small>(pretrained), newer));
}
