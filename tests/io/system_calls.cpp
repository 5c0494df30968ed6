// Every system call fails, one at a time: the result is an error with a message or complete success, never a partial
// file.
#include "support/system_calls.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::fail_each_call;

namespace {

const std::string old_bytes = "the old content", new_bytes = "the new content";

}  // namespace

TEST_CASE("A save in which a system call fails leaves the old file or the new one, and keeps a link", "[io]") {
  namespace fs = std::filesystem;
  const test::Folder folder;
  const auto prepare = [&] {
    for (const auto& entry : fs::directory_iterator(folder.path())) fs::remove(entry.path());
    test::write_bytes(folder / "target", old_bytes);
    fs::create_symlink("target", folder / "link");
  };
  const auto save = [&] {
    AtomicFile file(folder / "link");
    file.write(std::as_bytes(std::span(new_bytes)));
    file.commit();
  };
  const auto check = [&](const std::string& message) {
    const bool written = message.empty() || message.find("is written") != message.npos;
    REQUIRE(fs::is_symlink(folder / "link"));
    REQUIRE(test::read_bytes(folder / "target") == (written ? new_bytes : old_bytes));
    REQUIRE(folder.entries() == 2);
  };
  const auto seen = fail_each_call(prepare, save, check);
  for (const char* call :
       {"open", "lstat", "fstat", "readlink", "flock", "fchmod", "write", "fsync", "rename", "close"}) {
    INFO(call);
    CHECK(seen.contains(call));
  }
}

TEST_CASE("A killed writer's temporary file does no harm if a system call fails", "[io]") {
  const test::Folder folder;
  std::filesystem::path temporary, next;
  {
    const AtomicFile file(folder / "a");
    temporary = std::filesystem::directory_iterator(folder.path())->path();
    const std::string name = temporary.string();
    REQUIRE(name.back() == '0');
    next = name.substr(0, name.size() - 1) + '1';
  }
  const auto prepare = [&] {
    test::write_bytes(folder / "a", old_bytes);
    std::filesystem::remove(next);
    test::write_bytes(temporary, "half of");
  };
  const auto save = [&] {
    AtomicFile file(folder / "a");
    file.write(std::as_bytes(std::span(new_bytes)));
    file.commit();
  };
  const auto check = [&](const std::string& message) {
    const bool written = message.empty() || message.find("is written") != message.npos;
    REQUIRE(test::read_bytes(folder / "a") == (written ? new_bytes : old_bytes));
    REQUIRE_FALSE(std::filesystem::exists(next));
  };
  CHECK(fail_each_call(prepare, save, check).contains("unlink"));
}

TEST_CASE("Texts are read completely or not at all if a system call fails", "[io]") {
  const test::Folder folder;
  std::filesystem::create_directories(folder / "b");
  std::filesystem::create_directories(folder / "out");
  test::write_bytes(folder / "a", "1");
  test::write_bytes(folder / "b/c", "2");
  test::write_bytes(folder / "out/d", "left out");
  test::write_bytes(folder / "target", "3");
  std::filesystem::create_symlink("target", folder / "link");
  std::vector<unsigned char> text;
  const std::filesystem::path all = folder.path();
  const auto read = [&] { text = read_text(std::span(&all, 1), nullptr, folder / "out"); };
  const auto seen = fail_each_call([&] { text.clear(); }, read,
                                   [&](const std::string& message) {
                                     REQUIRE(std::string(text.begin(), text.end()) == (message.empty() ? "1233" : ""));
                                   });
  for (const char* call : {"open", "openat", "readdir", "fstat", "read", "stat"}) {
    INFO(call);
    CHECK(seen.contains(call));
  }
}

TEST_CASE("Models and checkpoints are loaded completely or not at all if a system call fails", "[io]") {
  using Net = test::TrainedNet;
  const test::Folder folder;
  Model<Net> written(Seed{1}), before(Seed{2}), model(Seed{2});
  Trainer trainer(written);
  save(written, folder / "model");
  save_checkpoint(folder / "checkpoint", trainer);
  const auto same = [](const Model<Net>& a, const Model<Net>& b) {
    return std::equal(a.parameters().begin(), a.parameters().end(), b.parameters().begin());
  };
  const auto check = [&](const std::string& message) { REQUIRE(same(model, message.empty() ? written : before)); };
  const auto prepare = [&] { model.write(before.parameters()); };
  CHECK(fail_each_call(
            prepare, [&] { load(model, folder / "model"); }, check)
            .contains("mmap"));

  Trainer resumed(model);
  CHECK(fail_each_call(
            prepare, [&] { load_checkpoint(folder / "checkpoint", resumed); }, check)
            .contains("mmap"));

  const auto bytes = test::read_bytes(folder / "checkpoint");
  Trainer other(before);
  const auto old_checkpoint = [&] { test::write_bytes(folder / "new", old_bytes); };
  fail_each_call(
      old_checkpoint, [&] { save_checkpoint(folder / "new", trainer); },
      [&](const std::string& message) {
        const bool written = message.empty() || message.find("is written") != message.npos;
        REQUIRE(test::read_bytes(folder / "new") == (written ? bytes : old_bytes));
      });
}
