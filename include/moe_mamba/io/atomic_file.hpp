#pragma once

#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <span>
#include <stdexcept>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "moe_mamba/io/descriptor.hpp"
#include "moe_mamba/io/file_error.hpp"

namespace moe_mamba {

/// A file that appears whole or not at all.
///
/// The bytes go to a temporary file "<path>.tmp<n>" in the same folder; commit() makes it durable and puts it in the
/// place of the old file in one step. Whenever the program or the machine stops, `path` holds the old content or the
/// new one, complete. What goes wrong is a std::runtime_error that names path, step and reason; the temporary is then
/// gone and the old file is as it was.
///
/// A temporary that a killed process left behind is removed by the next AtomicFile of the same path, on file systems
/// with flock. The new file has the permissions of the old one, or those that the umask gives. A symbolic link is
/// followed, so that the file it points at is replaced and not the link. Several processes may write the same path at a
/// time: each writes its own temporary, and the last commit stands.
class AtomicFile {
 public:
  /// Creates the temporary. Throws if the folder is missing or unwritable or if `path` exists and is no regular file.
  explicit AtomicFile(std::filesystem::path path);

  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Removes the temporary if nothing was committed.
  ~AtomicFile() { abandon(); }

  /// Appends bytes.
  void write(std::span<const std::byte> bytes);

  /// Makes the bytes durable and visible under the path. The object is done then; write() and commit() throw.
  void commit();

 private:
  void create();
  bool remove_if_stale(const std::filesystem::path& name) const;
  static bool names(const std::filesystem::path& name, int descriptor);
  void check_open(const char* what) const {
    if (!file_) detail::throw_file_error(path_, what, "the file was committed or abandoned before");
  }
  [[noreturn]] void fail(const char* what, int code) {
    abandon();
    detail::throw_system_error(path_, what, code);
  }
  void abandon() noexcept {
    if (!file_) return;
    // Removed while its lock is held: nobody else can have taken the name meanwhile.
    ::unlink(temporary_.c_str());
    file_ = detail::Descriptor();
  }

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  detail::Descriptor file_;
};

inline AtomicFile::AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
  if (!path_.has_filename()) detail::throw_file_error(path_, "cannot be written", "the path names no file");
  std::error_code error;
  for (int links = 0; std::filesystem::is_symlink(path_, error); ++links) {
    const auto target = std::filesystem::read_symlink(path_, error);
    if (error || links == 40) {
      detail::throw_system_error(path_, "its symbolic link cannot be followed", error ? error.value() : ELOOP);
    }
    path_ = path_.parent_path() / target;
  }
  struct stat old = {};
  const bool exists = ::stat(path_.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode)) {
    detail::throw_file_error(path_, "cannot be replaced", "it is not a regular file");
  }
  create();
  if (exists && ::fchmod(file_.get(), old.st_mode & 07777) != 0) fail("the old permissions cannot be kept", errno);
}

/// Finds a free name for the temporary. It stays locked as long as it is written; an unlocked one is a killed writer's.
inline void AtomicFile::create() {
  constexpr int names_tried = 1000;
  for (int n = 0; n < names_tried;) {
    temporary_ = path_;
    temporary_ += ".tmp" + std::to_string(n);
    file_ = detail::Descriptor(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file_) {
      // Between creation and lock somebody may take the file for a stale one; then the name is lost, and tried again.
      const bool locked = ::flock(file_.get(), LOCK_EX | LOCK_NB) == 0;
      const bool taken = locked ? !names(temporary_, file_.get()) : errno == EWOULDBLOCK;
      if (!taken) return;
      file_ = detail::Descriptor();
    } else if (errno != EINTR && errno != EEXIST) {
      detail::throw_system_error(path_, "cannot create a temporary file beside it", errno);
    } else if (errno == EINTR || remove_if_stale(temporary_)) {
      continue;
    }
    ++n;
  }
  detail::throw_file_error(path_, "cannot create a temporary file beside it", "the names .tmp0 to .tmp999 are taken");
}

inline bool AtomicFile::remove_if_stale(const std::filesystem::path& name) const {
  const detail::Descriptor stale(::open(name.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!stale || ::flock(stale.get(), LOCK_EX | LOCK_NB) != 0) return false;
  return names(name, stale.get()) && ::unlink(name.c_str()) == 0;
}

inline bool AtomicFile::names(const std::filesystem::path& name, int descriptor) {
  struct stat by_name = {}, by_descriptor = {};
  return ::lstat(name.c_str(), &by_name) == 0 && ::fstat(descriptor, &by_descriptor) == 0 &&
         by_name.st_dev == by_descriptor.st_dev && by_name.st_ino == by_descriptor.st_ino;
}

inline void AtomicFile::write(std::span<const std::byte> bytes) {
  check_open("cannot be written");
  while (!bytes.empty()) {
    const ssize_t written = ::write(file_.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("cannot be written", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

inline void AtomicFile::commit() {
  check_open("cannot be committed");
  while (::fsync(file_.get()) != 0) {
    if (errno != EINTR) fail("cannot be made durable", errno);
  }
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be put in place", errno);
  file_ = detail::Descriptor();

  // The new name lives in the folder, which has to reach the disk as well. Some file systems cannot be asked to.
  const auto parent = path_.parent_path();
  const detail::Descriptor folder(::open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder) return;  // a folder that may be written and not read
  while (::fsync(folder.get()) != 0) {
    if (errno == EINVAL || errno == ENOTSUP || errno == ENOSYS) break;
    if (errno != EINTR) detail::throw_system_error(path_, "is in place, but its folder cannot be made durable", errno);
  }
}

}  // namespace moe_mamba
