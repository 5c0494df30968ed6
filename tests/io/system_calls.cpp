// Every system call that fails, one at a time: an error in words, or a result as if it had not; never half of something.
#include <cerrno>
#include <cstdarg>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <functional>
#include <set>
#include <string>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

namespace {

/// Which call is to fail, and what came of it.
struct Fault {
  long calls_left = 0;  // 0: none fails
  int error = 0;
  std::string call;  // the one that failed
  std::set<std::string> seen;
} fault;

bool fails(const char* call) {
  if (fault.calls_left == 0) return false;
  fault.seen.insert(call);
  if (--fault.calls_left > 0) return false;
  fault.call = call;
  errno = fault.error;
  return true;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// These stand before the system library's. What gives something back does so all the same, as it does after an error.

extern "C" {
int open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return fails("open") ? -1 : next<int(const char*, int, ...)>("open")(path, flags, mode);
}
int lstat(const char* path, struct stat* status) noexcept {
  return fails("lstat") ? -1 : next<int(const char*, struct stat*)>("lstat")(path, status);
}
int stat(const char* path, struct stat* status) noexcept {
  return fails("stat") ? -1 : next<int(const char*, struct stat*)>("stat")(path, status);
}
int fstat(int file, struct stat* status) noexcept {
  return fails("fstat") ? -1 : next<int(int, struct stat*)>("fstat")(file, status);
}
ssize_t readlink(const char* path, char* target, size_t size) noexcept {
  return fails("readlink") ? -1 : next<ssize_t(const char*, char*, size_t)>("readlink")(path, target, size);
}
int flock(int file, int operation) noexcept {
  return fails("flock") ? -1 : next<int(int, int)>("flock")(file, operation);
}
int fchmod(int file, mode_t mode) noexcept {
  return fails("fchmod") ? -1 : next<int(int, mode_t)>("fchmod")(file, mode);
}
ssize_t read(int file, void* bytes, size_t size) {
  return fails("read") ? -1 : next<ssize_t(int, void*, size_t)>("read")(file, bytes, size);
}
ssize_t write(int file, const void* bytes, size_t size) {
  return fails("write") ? -1 : next<ssize_t(int, const void*, size_t)>("write")(file, bytes, size);
}
int fsync(int file) { return fails("fsync") ? -1 : next<int(int)>("fsync")(file); }
int rename(const char* from, const char* to) noexcept {
  return fails("rename") ? -1 : next<int(const char*, const char*)>("rename")(from, to);
}
int unlink(const char* path) noexcept { return fails("unlink") ? -1 : next<int(const char*)>("unlink")(path); }
void* mmap(void* at, size_t size, int protection, int flags, int file, off_t offset) noexcept {
  if (file >= 0 && fails("mmap")) return MAP_FAILED;
  return next<void*(void*, size_t, int, int, int, off_t)>("mmap")(at, size, protection, flags, file, offset);
}
int close(int file) {
  const bool failed = fails("close");
  const int result = next<int(int)>("close")(file);
  if (failed) errno = fault.error;
  return failed ? -1 : result;
}
int openat(int folder, const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return fails("openat") ? -1 : next<int(int, const char*, int, ...)>("openat")(folder, path, flags, mode);
}
struct dirent* readdir(DIR* folder) {
  return fails("readdir") ? nullptr : next<struct dirent*(DIR*)>("readdir")(folder);
}
}

using namespace moe_mamba;

namespace {

constexpr int errors[] = {EIO, EACCES, ENOSPC, EMFILE, EINTR};

/// Runs `call` behind a fresh `prepare()` once for each system call in it, with that one failing, for each of some
/// errors; `check(message)` looks at what is left, the message being "" where the call returned. Returns the calls seen.
std::set<std::string> fail_each_call(const std::function<void()>& prepare, const std::function<void()>& call,
                                     const std::function<void(const std::string&)>& check) {
  std::set<std::string> seen;
  for (const int error : errors) {
    for (long n = 1;; ++n) {
      prepare();
      fault = {n, error, "", {}};
      std::string message;
      try {
        call();
      } catch (const std::runtime_error& failure) {
        message = failure.what();
      }
      fault.calls_left = 0;
      seen.merge(fault.seen);
      INFO("call " << n << ", " << fault.call << ", fails with " << std::generic_category().message(error) << ": "
                   << message);
      if (fault.call.empty()) {
        REQUIRE(message.empty());
        break;
      }
      if (!message.empty()) {
        REQUIRE(message.find(std::generic_category().message(error)) != message.npos);
        REQUIRE(message.find('/') != message.npos);
      }
      check(message);
    }
  }
  return seen;
}

const std::string old_bytes = "the old content", new_bytes = "the new content";

}  // namespace

TEST_CASE("A save of which a system call fails leaves the old file or the new one, and a link a link", "[io]") {
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
    const bool in_place = message.empty() || message.find("is in place") != message.npos;
    REQUIRE(fs::is_symlink(folder / "link"));
    REQUIRE(test::read_bytes(folder / "target") == (in_place ? new_bytes : old_bytes));
    REQUIRE(folder.entries() == 2);
  };
  const auto seen = fail_each_call(prepare, save, check);
  for (const char* call :
       {"open", "lstat", "fstat", "readlink", "flock", "fchmod", "write", "fsync", "rename", "close"}) {
    INFO(call);
    CHECK(seen.contains(call));
  }
}

TEST_CASE("A killed writer's temporary does no harm where a system call fails", "[io]") {
  const test::Folder folder;
  const auto prepare = [&] {
    test::write_bytes(folder / "a", old_bytes);
    std::filesystem::remove(folder / "a.tmp1");
    test::write_bytes(folder / "a.tmp0", "half of");
  };
  const auto save = [&] {
    AtomicFile file(folder / "a");
    file.write(std::as_bytes(std::span(new_bytes)));
    file.commit();
  };
  const auto check = [&](const std::string& message) {
    const bool in_place = message.empty() || message.find("is in place") != message.npos;
    REQUIRE(test::read_bytes(folder / "a") == (in_place ? new_bytes : old_bytes));
    REQUIRE_FALSE(std::filesystem::exists(folder / "a.tmp1"));
  };
  CHECK(fail_each_call(prepare, save, check).contains("unlink"));
}

TEST_CASE("Texts are read whole or not at all where a system call fails", "[io]") {
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

TEST_CASE("Models and checkpoints are loaded whole or not at all where a system call fails", "[io]") {
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
        const bool in_place = message.empty() || message.find("is in place") != message.npos;
        REQUIRE(test::read_bytes(folder / "new") == (in_place ? bytes : old_bytes));
      });
}
