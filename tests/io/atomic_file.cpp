#include "moe_mamba/io/atomic_file.hpp"

#include <chrono>
#include <csignal>
#include <functional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

void save(const std::filesystem::path& path, const std::string& content) {
  AtomicFile file(path);
  file.write(std::as_bytes(std::span(content)));
  file.commit();
}

std::string failure(const std::function<void()>& call) { return test::message_of<std::runtime_error>(call); }

bool holds(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// Runs `body` in a child process and returns its wait status. The child never returns.
pid_t in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int result = 99;
    try {
      result = body();
    } catch (...) {
    }
    ::_exit(result);
  }
  return child;
}

int exit_code(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("A committed file contains all that was written, and no other file is left in the folder", "[io]") {
  const test::Folder folder;
  for (const std::size_t size : {0u, 1u, 4096u, 1000003u}) {
    std::string content(size, '\0');
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * i % 251);
    AtomicFile file(folder / "a");
    for (std::size_t i = 0; i < size;) {
      const std::size_t count = std::min<std::size_t>(1 + i, size - i);
      file.write(std::as_bytes(std::span(content).subspan(i, count)));
      i += count;
    }
    file.commit();
    CHECK(test::read_bytes(folder / "a") == content);
    CHECK(folder.entries() == 1);
    CHECK(holds(failure([&] { file.write({}); }), "a: cannot be written"));
    CHECK(holds(failure([&] { file.commit(); }), "a: cannot be committed"));
    CHECK(test::read_bytes(folder / "a") == content);
  }
}

TEST_CASE("A file of any name that the file system supports can be saved", "[io]") {
  const test::Folder folder;
  for (const std::size_t length : {1u, 100u, 249u, 250u, 251u, 254u, 255u}) {
    INFO(length);
    const auto path = folder / std::string(length, 'n');
    save(path, "old");
    {
      AtomicFile file(path);
      file.write(std::as_bytes(std::span("new")));
      CHECK(folder.entries() == 2);
    }
    save(path, "newer");
    CHECK(test::read_bytes(path) == "newer");
    CHECK(folder.entries() == 1);
    std::filesystem::remove(path);
  }
}

TEST_CASE("A path in a message is one line of UTF-8", "[io]") {
  const test::Folder folder;
  const auto message = [&](const std::string& name) { return failure([&] { save(folder / name / "a", "new"); }); };
  CHECK(message("plain ä").starts_with(folder.path().string() + "/plain ä/a: "));
  CHECK(message("a\nb").starts_with("\"" + folder.path().string() + "/a\\x0ab/a\": "));
  CHECK(message("a\xff\x1b[31m").starts_with("\"" + folder.path().string() + "/a\\xff\\x1b[31m/a\": "));
  const std::string longest = std::string(200, 'n') + "\n";
  CHECK(holds(message(longest), std::string(200, 'n') + "\\x0a/a\": "));
  CHECK(failure([] { detail::throw_content_error("a\nb", "size", "1", "2"); }) == "\"a\\x0ab\": size is 1; allowed: 2");
}

TEST_CASE("Without a commit the old file is kept and the temporary one removed", "[io]") {
  const test::Folder folder;
  save(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write(std::as_bytes(std::span("new")));
    CHECK(folder.entries() == 2);
    CHECK(test::read_bytes(folder / "a") == "old");
  }
  CHECK(folder.entries() == 1);
  CHECK(test::read_bytes(folder / "a") == "old");
}

TEST_CASE("Two writers of one path do not interfere, and the last commit wins", "[io]") {
  const test::Folder folder;
  AtomicFile first(folder / "a"), second(folder / "a");
  first.write(std::as_bytes(std::span("1", 1)));
  second.write(std::as_bytes(std::span("2", 1)));
  second.commit();
  CHECK(test::read_bytes(folder / "a") == "2");
  first.commit();
  CHECK(test::read_bytes(folder / "a") == "1");
  CHECK(folder.entries() == 1);

  // Many concurrently, in threads: every state that a reader finds is a complete version.
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, writer] {
      for (int i = 0; i < 20; ++i) save(folder / "a", std::string(5000, static_cast<char>('a' + writer)));
    });
  }
  for (int i = 0; i < 200; ++i) {
    const std::string content = test::read_bytes(folder / "a");
    if (content.size() != 1 && content != std::string(5000, content[0])) FAIL("a mixed file");
  }
  for (auto& writer : writers) writer.join();
  CHECK(folder.entries() == 1);
}

TEST_CASE("Permissions of the old file are kept and a link is followed", "[io]") {
  namespace fs = std::filesystem;
  const test::Folder folder;
  save(folder / "a", "old");
  fs::permissions(folder / "a", fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read);
  save(folder / "a", "new");
  CHECK(fs::status(folder / "a").permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read));

  fs::create_directory(folder / "b");
  fs::create_symlink("b/target", folder / "link");
  save(folder / "link", "through the link");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(test::read_bytes(folder / "b/target") == "through the link");
  save(folder / "link", "once more");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(test::read_bytes(folder / "b/target") == "once more");
  fs::create_symlink("circle", folder / "circle");
  CHECK(holds(failure([&] { AtomicFile file(folder / "circle"); }), "its symbolic link cannot be followed"));
}

TEST_CASE("An unwritable path is named, and no temporary file remains", "[io]") {
  const test::Folder folder;
  test::write_bytes(folder / "file", "old");
  const auto message = [&](const std::filesystem::path& path) { return failure([&] { AtomicFile file(path); }); };
  CHECK(holds(message(folder / "absent/a"), (folder / "absent/a").string() + ": cannot create a temporary file"));
  CHECK(holds(message(folder / "absent/a"), "No such file or directory"));
  CHECK(holds(message(folder / "file/a"), "Not a directory"));
  CHECK(holds(message(folder.path()), "not a regular file"));
  CHECK(holds(message("/dev/null"), "/dev/null: cannot be replaced: it is not a regular file"));
  CHECK(holds(message(""), "the path names no file"));
  CHECK(holds(message(folder / ""), "the path names no file"));
  CHECK(holds(message(folder / std::string(256, 'n')), "File name too long"));
  CHECK(folder.entries() == 1);
  CHECK(test::read_bytes(folder / "file") == "old");
}

TEST_CASE("A disk that fills up during a save leaves the old file and no temporary", "[io]") {
  const test::Folder folder;
  save(folder / "a", "old");
  const pid_t child = in_child([&] {
    // Files of this process may not grow past 10000 bytes: the write that would is cut short, the next one fails.
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10000, 10000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    AtomicFile file(folder / "a");
    const std::string content(7000, 'n');
    file.write(std::as_bytes(std::span(content)));
    const auto message = failure([&] { file.write(std::as_bytes(std::span(content))); });
    if (!holds(message, (folder / "a").string() + ": cannot be written: File too large")) return 1;
    if (folder.entries() != 1) return 2;
    if (test::read_bytes(folder / "a") != "old") return 3;
    if (failure([&] { file.commit(); }).empty()) return 4;  // half a file is never committed
    return test::read_bytes(folder / "a") == "old" ? 0 : 5;
  });
  CHECK(exit_code(child) == 0);
  CHECK(test::read_bytes(folder / "a") == "old");
}

TEST_CASE("Killed at any moment, a program that saves leaves one complete version", "[io]") {
  const test::Folder folder;
  const std::string versions[] = {std::string(300'000, 'a'), std::string(200'000, 'b')};
  save(folder / "a", versions[0]);
  Random random(Seed{1});
  int changes = 0, leftovers = 0;
  std::string last = versions[0];
  for (int round = 0; round < 100; ++round) {
    const pid_t child = in_child([&]() -> int {
      for (std::size_t i = std::size_t(round);; ++i) {
        AtomicFile file(folder / "a");
        const auto bytes = std::as_bytes(std::span(versions[i % 2]));
        for (std::size_t at = 0; at < bytes.size(); at += 10'000) file.write(bytes.subspan(at, 10'000));
        file.commit();
      }
    });
    REQUIRE(child > 0);
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(20'000)));
    ::kill(child, SIGKILL);
    exit_code(child);
    const std::string content = test::read_bytes(folder / "a");
    REQUIRE((content == versions[0] || content == versions[1]));
    REQUIRE(folder.entries() <= 2);  // the temporary of one killed writer, never more
    changes += content != last;
    leftovers += folder.entries() == 2;
    last = content;
  }
  // The kills did hit saves that were under way.
  CHECK(changes > 10);
  CHECK(leftovers > 10);
  save(folder / "a", "end");
  CHECK(folder.entries() == 1);
  CHECK(test::read_bytes(folder / "a") == "end");
}
