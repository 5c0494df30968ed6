#pragma once

#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "moe_mamba/io/descriptor.hpp"
#include "moe_mamba/io/file_error.hpp"
#include "moe_mamba/io/hash.hpp"

namespace moe_mamba::inline v0_2 {

/// A file that appears whole or not at all.
///
/// The bytes go to a temporary file "moe_mamba-<hash of the name>.tmp<n>" in the same folder; commit() makes it durable and atomically
/// renames it over the old file. Whenever the program or the machine stops, `path` holds the complete old or the
/// complete new contents. Failures throw a std::runtime_error that names path, step and reason; the temporary file is
/// then removed and the old file unchanged.
///
/// A stale temporary file of a killed process is removed by the next AtomicFile of the same path, on file systems with
/// flock. The new file has the permissions of the old one, or those given by the umask. A symbolic link is followed, so
/// that its target is replaced and not the link. Several processes may write the same path at the same time: each
/// writes its own temporary file, and the last commit wins.
class AtomicFile {
 public:
  /// Creates the temporary file. Throws if the folder is missing or unwritable or if `path` exists and is not a regular
  /// file.
  explicit AtomicFile(std::filesystem::path path);

  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Removes the temporary file if nothing was committed.
  ~AtomicFile() { abandon(); }

  /// Appends bytes.
  void write(std::span<const std::byte> bytes);

  /// Makes the bytes durable and visible under the path. Afterwards write() and commit() throw.
  void commit();

 private:
  void create();
  std::filesystem::path temporary(int number) const;
  bool remove_if_stale(const std::filesystem::path& name) const;
  std::optional<struct stat> follow_links();
  static std::optional<bool> names(const std::filesystem::path& name, int descriptor);
  void check_open(const char* what) const {
    if (!file_) detail::throw_file_error(path_, what, "the file was committed or abandoned before");
  }
  [[noreturn]] void fail(const char* what, int code) {
    abandon();
    detail::throw_system_error(path_, what, code);
  }
  void abandon() noexcept {
    if (!file_) return;
    // Removed while its lock is held, so that no other process can have taken the name in between.
    ::unlink(temporary_.c_str());
    file_ = detail::Descriptor();
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  detail::Descriptor file_;
};

inline AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  if (!path_.has_filename()) detail::throw_file_error(path_, "cannot be written", "the path names no file");
  const std::optional<struct stat> old = follow_links();
  if (old && !S_ISREG(old->st_mode)) {
    detail::throw_file_error(path_, "cannot be replaced", "it is not a regular file");
  }
  create();
  if (old && ::fchmod(file_.get(), old->st_mode & 07777) != 0) fail("the old permissions cannot be kept", errno);
}

/// Resolves the symbolic links of path_. Returns the status of the target, or none if it does not exist.
inline std::optional<struct stat> AtomicFile::follow_links() {
  constexpr int most_links = 40;
  for (int links = 0;; ++links) {
    struct stat status = {};
    if (::lstat(path_.c_str(), &status) != 0) {
      if (errno == ENOENT) return std::nullopt;
      detail::throw_system_error(path_, "cannot be examined", errno);
    }
    if (!S_ISLNK(status.st_mode)) return status;
    std::error_code error;
    const auto target = std::filesystem::read_symlink(path_, error);
    if (error || links == most_links) {
      detail::throw_system_error(path_, "its symbolic link cannot be followed", error ? error.value() : ELOOP);
    }
    path_ = path_.parent_path() / target;
  }
}

/// As long as any other: the name of the file may be as long as names can be.
inline std::filesystem::path AtomicFile::temporary(int number) const {
  const std::string hash = detail::hexadecimal(detail::hash_text(path_.filename().string(), 0));
  return path_.parent_path() / ("moe_mamba-" + hash + ".tmp" + std::to_string(number));
}

/// Finds a free name for the temporary file. It stays locked while it is written; an unlocked one is stale.
inline void AtomicFile::create() {
  constexpr int names_tried = 1000;
  for (int n = 0; n < names_tried;) {
    temporary_ = temporary(n);
    file_ = detail::open_descriptor(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (!file_) {
      if (errno != EEXIST) detail::throw_system_error(path_, "cannot create a temporary file beside it", errno);
      if (!remove_if_stale(temporary_)) ++n;
      continue;
    }
    // Between creation and locking, another process may remove the file as stale; then the next name is tried.
    if (::flock(file_.get(), LOCK_EX | LOCK_NB) == 0) {
      const std::optional<bool> ours = names(temporary_, file_.get());
      if (!ours) fail("its temporary file cannot be examined", errno);
      if (*ours) return;
    } else if (errno != EWOULDBLOCK) {
      // Without support for locks, no process removes files as stale either.
      const bool no_locks = errno == ENOTSUP || errno == ENOSYS || errno == EINVAL || errno == ENOLCK;
      if (!no_locks) fail("its temporary file cannot be locked", errno);
      return;
    }
    file_ = detail::Descriptor();
    ++n;
  }
  detail::throw_file_error(
      path_, "cannot create a temporary file beside it",
      "the names " + temporary(0).filename().string() + " to .tmp" + std::to_string(names_tried - 1) + " are taken");
}

/// Whether the temporary file was stale and has been removed. If that cannot be determined, it counts as in use.
inline bool AtomicFile::remove_if_stale(const std::filesystem::path& name) const {
  const detail::Descriptor stale = detail::open_descriptor(name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!stale || ::flock(stale.get(), LOCK_EX | LOCK_NB) != 0) return false;
  return names(name, stale.get()) == true && ::unlink(name.c_str()) == 0;
}

/// Whether `name` is a name of the open file; none, with errno set, if that cannot be determined.
inline std::optional<bool> AtomicFile::names(const std::filesystem::path& name, int descriptor) {
  struct stat by_name = {}, by_descriptor = {};
  if (::fstat(descriptor, &by_descriptor) != 0) return std::nullopt;
  if (::lstat(name.c_str(), &by_name) != 0) return errno == ENOENT ? std::optional(false) : std::nullopt;
  return by_name.st_dev == by_descriptor.st_dev && by_name.st_ino == by_descriptor.st_ino;
}

inline void AtomicFile::write(std::span<const std::byte> bytes) {
  check_open("cannot be written");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("cannot be written", written < 0 ? errno : EIO);  // zero would loop forever
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

inline void AtomicFile::commit() {
  check_open("cannot be committed");
  while (::fsync(file_.get()) != 0) {
    if (errno != EINTR) fail("cannot be made durable", errno);
  }
  // The directory entry must reach the disk as well. The folder is opened before anything changes; it may be writable
  // but not readable.
  const auto parent = path_.parent_path();
  const detail::Descriptor folder = detail::open_descriptor(parent.empty() ? "." : parent, O_RDONLY | O_DIRECTORY);
  if (!folder && errno != EACCES) fail("its folder cannot be opened", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be renamed into place", errno);
  file_ = detail::Descriptor();

  while (folder && ::fsync(folder.get()) != 0) {
    if (errno == EINVAL || errno == ENOTSUP || errno == ENOSYS) break;  // not supported by some file systems
    if (errno != EINTR) detail::throw_system_error(path_, "is written, but its folder cannot be made durable", errno);
  }
}

}  // namespace moe_mamba::inline v0_2
