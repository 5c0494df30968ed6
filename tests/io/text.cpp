#include "moe_mamba/io/text.hpp"

#include "moe_mamba/io/mapped_file.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

std::string text_of(const std::vector<unsigned char>& bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

TEST_CASE("A folder's text is that of its files, sorted by path, without binary ones", "[io]") {
  namespace fs = std::filesystem;
  const test::Folder folder;
  fs::create_directories(folder / "b/deep");
  fs::create_directories(folder / "empty");
  test::write_bytes(folder / "c", "3");
  test::write_bytes(folder / "b/z", "2");
  test::write_bytes(folder / "b/deep/a", "1\xFF\n");
  test::write_bytes(folder / "a", "0");
  test::write_bytes(folder / "b/nothing", "");
  test::write_bytes(folder / "b/image", std::string("x\0y", 3));
  fs::create_symlink("absent", folder / "b/broken");
  fs::create_directory_symlink(folder.path(), folder / "b/circle");

  TextFiles files;
  CHECK(text_of(read_text(folder.path(), &files)) == "01\xFF\n23");
  CHECK(files.read == 5);
  CHECK(files.skipped == 1);

  // Paths are taken in the order given; a file given by name is always read.
  const std::vector<fs::path> paths = {folder / "c", folder / "b/image", folder / "b"};
  CHECK(text_of(read_text(paths, &files)) == std::string("3x\0y1\xFF\n2", 8));
  CHECK(files.read == 5);
  CHECK(files.skipped == 1);
}

TEST_CASE("A file of any size is read and mapped byte for byte", "[io]") {
  const test::Folder folder;
  for (const std::size_t size : {1u, 4095u, 4096u, 65536u, 65537u, 1000003u}) {
    std::string content(size, '\0');
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<char>(i * 7 % 253);
    test::write_bytes(folder / "a", content);
    CHECK(text_of(read_text(folder / "a")) == content);
    MappedFile opened(folder / "a");
    MappedFile mapped = std::move(opened);
    CHECK(opened.bytes().empty());
    // Replacing the file leaves the mapping as it was.
    std::filesystem::remove(folder / "a");
    CHECK(std::string(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()) == content);
  }
  // System files report no size.
  CHECK(!read_text("/proc/self/status").empty());
}

TEST_CASE("An excluded folder is skipped wherever it is, also under another name", "[io]") {
  const test::Folder folder;
  std::filesystem::create_directories(folder / "a/out/deep");
  std::filesystem::create_directories(folder / "b");
  test::write_bytes(folder / "a/1", "one ");
  test::write_bytes(folder / "a/out/2", "two ");
  test::write_bytes(folder / "a/out/deep/3", "three ");
  test::write_bytes(folder / "b/4", "four ");
  const std::filesystem::path all = folder / ".";
  const auto read = [&](const std::filesystem::path& except) {
    return text_of(read_text(std::span(&all, 1), nullptr, except));
  };
  CHECK(read({}) == "one two three four ");
  CHECK(read(folder / "a/out") == "one four ");
  CHECK(read(folder / "b/../a/out") == "one four ");
  CHECK(read(folder / "absent") == "one two three four ");
}

TEST_CASE("Paths that cannot be read are named", "[io]") {
  const test::Folder folder;
  test::write_bytes(folder / "a", "text");
  const auto message = [](const std::filesystem::path& path) {
    return test::message_of<std::runtime_error>([&] { read_text(path); });
  };
  CHECK(message(folder / "absent") == (folder / "absent").string() + ": cannot be read: No such file or directory");
  CHECK(message(folder / "a/b") == (folder / "a/b").string() + ": cannot be read: Not a directory");
  CHECK(message("/dev/null") == "/dev/null: cannot be read as text: it is not a regular file");
  CHECK(message("") == ": cannot be read: No such file or directory");
  std::filesystem::create_directories(folder / "empty/deeper");
  const std::string empty = (folder / "empty").string();
  CHECK(message(empty) == empty + ": there is no text in this folder: it holds no files, or only empty ones");
  test::write_bytes(folder / "empty/deeper/image", std::string("x\0y", 3));
  CHECK(message(empty) == empty + ": there is no text in this folder: 1 binary file was skipped");
}
