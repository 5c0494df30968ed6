#pragma once

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <span>
#include <string>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/io/descriptor.hpp"
#include "moe_mamba/io/file_error.hpp"

namespace moe_mamba::inline v0_2 {

/// How many files were read, and how many were skipped as binary.
struct TextFiles {
  Index read = 0;
  Index skipped = 0;
};

namespace detail {

/// Appends a regular file's bytes.
inline void append_file(const std::filesystem::path& path, std::vector<unsigned char>& text) {
  const Descriptor file = open_descriptor(path, O_RDONLY | O_NONBLOCK);
  if (!file) throw_system_error(path, "cannot be opened for reading", errno);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) throw_system_error(path, "cannot be examined", errno);
  if (!S_ISREG(status.st_mode)) throw_file_error(path, "cannot be read as text", "it is not a regular file");

  // The size is only a hint: the file may grow, and some files report none. One byte more detects the end at once.
  std::size_t size = text.size(), room = static_cast<std::size_t>(status.st_size) + 1;
  for (;;) {
    text.resize(size + room);
    const ssize_t count = ::read(file.get(), text.data() + size, room);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_system_error(path, "cannot be read", errno);
    size += static_cast<std::size_t>(count);
    if (count == 0) break;
    room = std::max<std::size_t>(room - static_cast<std::size_t>(count), 1 << 16);
  }
  text.resize(size);
}

/// Whether two paths refer to the same file or folder; false if one does not exist. (In some standard libraries
/// std::filesystem::equivalent() treats an error of stat() as a different file.)
inline bool is_same(const std::filesystem::path& a, const std::filesystem::path& b) {
  struct stat found[2];
  const std::filesystem::path* paths[2] = {&a, &b};
  for (int i = 0; i < 2; ++i) {
    if (::stat(paths[i]->c_str(), &found[i]) == 0) continue;
    if (errno == ENOENT || errno == ENOTDIR || errno == ELOOP) return false;
    throw_system_error(*paths[i], "cannot be examined", errno);
  }
  return found[0].st_dev == found[1].st_dev && found[0].st_ino == found[1].st_ino;
}

/// All regular files below a folder, except those in the folder `except`, sorted by path, which gives the same order on
/// every machine.
inline std::vector<std::filesystem::path> files_below(const std::filesystem::path& folder,
                                                      const std::filesystem::path& except) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  std::error_code error;
  fs::path at = folder;
  fs::recursive_directory_iterator entry(folder, error);
  while (!error && entry != fs::recursive_directory_iterator()) {
    // A dangling link is skipped, and a missing `except` is ignored.
    const auto check = [&at](const std::error_code& failure) {
      const bool nowhere = failure == std::errc::no_such_file_or_directory || failure == std::errc::not_a_directory ||
                           failure == std::errc::too_many_symbolic_link_levels;
      if (failure && !nowhere) throw_system_error(at, "cannot be examined", failure.value());
    };
    std::error_code failure;
    at = entry->path();
    const auto type = entry->status(failure).type();
    check(failure);
    if (type == fs::file_type::regular) files.push_back(at);
    if (type == fs::file_type::directory && !except.empty() && is_same(at, except)) entry.disable_recursion_pending();
    entry.increment(error);
  }
  if (error) throw_system_error(at, "cannot be listed", error.value());
  std::sort(files.begin(), files.end(), [](const fs::path& a, const fs::path& b) { return a.native() < b.native(); });
  return files;
}

}  // namespace detail

/// The concatenated bytes of files and folders.
///
/// A path to a regular file gives all its bytes. A folder gives the regular files in it and its subfolders (links to
/// folders are not followed), sorted by path, except files that contain a zero byte, which are skipped as binary.
/// `files`, if given, receives the number of files read and skipped. The folder `except`, such as the one that a
/// program writes to, is excluded. Throws std::runtime_error naming the path that is missing, unreadable or neither
/// file nor folder, or a folder without any text.
inline std::vector<unsigned char> read_text(std::span<const std::filesystem::path> paths, TextFiles* files = nullptr,
                                            const std::filesystem::path& except = {}) {
  std::vector<unsigned char> text;
  TextFiles count;
  for (const auto& path : paths) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
      detail::throw_system_error(path, "cannot be read", error ? error.value() : ENOENT);
    }
    if (!std::filesystem::is_directory(status)) {
      detail::append_file(path, text);
      ++count.read;
      continue;
    }
    const std::size_t before = text.size();
    const Index skipped = count.skipped;
    for (const auto& file : detail::files_below(path, except)) {
      const std::size_t begin = text.size();
      detail::append_file(file, text);
      const bool binary = text.size() > begin && std::memchr(text.data() + begin, 0, text.size() - begin) != nullptr;
      if (binary) text.resize(begin);
      ++(binary ? count.skipped : count.read);
    }
    if (text.size() == before) {
      const Index binary = count.skipped - skipped;
      detail::throw_file_error(path, "there is no text in this folder",
                               binary == 0 ? "it holds no files, or only empty ones"
                                           : std::to_string(binary) + (binary == 1 ? " binary file was skipped"
                                                                                   : " binary files were skipped"));
    }
  }
  if (files != nullptr) *files = count;
  return text;
}

/// The bytes of one file or folder.
inline std::vector<unsigned char> read_text(const std::filesystem::path& path, TextFiles* files = nullptr) {
  return read_text(std::span(&path, 1), files);
}

}  // namespace moe_mamba::inline v0_2
