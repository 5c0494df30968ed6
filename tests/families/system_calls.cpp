// If a system call fails, a folder of a public model is read completely or not at all, and written in complete files.
#include "support/system_calls.hpp"

#include "families/folders.hpp"

using namespace moe_mamba;
using Small = test::SmallMamba;

TEST_CASE("Folders are opened completely or not at all if a system call fails", "[families]") {
  for (const char* fixture : {"mamba", "mamba_shards"}) {
    const Pretrained folder{test::fixture_folder(fixture)};
    const auto expected = load<Small>(folder);
    const Model<Small> before(Seed{1});
    Model<Small> model(Seed{1});
    const auto same = [&](const Model<Small>& other) {
      return std::equal(other.parameters().begin(), other.parameters().end(), model.parameters().begin());
    };
    const auto seen =
        test::fail_each_call([&] { model.write(before.parameters()); }, [&] { load(model, folder); },
                             [&](const std::string& message) { REQUIRE(same(message.empty() ? expected : before)); });
    for (const char* call : {"open", "stat", "lstat", "fstat", "mmap"}) {
      INFO(call);
      CHECK(seen.contains(call));
    }
  }
}

TEST_CASE("Folders are written completely or not at all if a system call fails", "[families]") {
  const test::Folder folder;
  const Pretrained pretrained{folder / "model"};
  const Model<Small> older(Seed{1}), newer(Seed{2});
  const auto holds = [&](const Model<Small>& model) {
    const auto read = load<Small>(pretrained);
    return std::equal(read.parameters().begin(), read.parameters().end(), model.parameters().begin());
  };
  const auto seen = test::fail_each_call(
      [&] { save(older, pretrained); }, [&] { save(newer, pretrained); },
      [&](const std::string& message) { REQUIRE((holds(newer) || (!message.empty() && holds(older)))); });
  for (const char* call : {"open", "write", "fsync", "rename", "flock"}) {
    INFO(call);
    CHECK(seen.contains(call));
  }
}
