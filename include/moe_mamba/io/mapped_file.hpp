#pragma once

#include <cerrno>
#include <cstddef>
#include <fcntl.h>
#include <filesystem>
#include <span>
#include <sys/mman.h>
#include <sys/stat.h>
#include <utility>

#include "moe_mamba/io/descriptor.hpp"
#include "moe_mamba/io/file_error.hpp"

namespace moe_mamba::inline v0_2 {

/// A read-only memory mapping of a whole file, loaded on access and shared by all processes that map it.
///
/// The bytes stay valid when the file is replaced (as by an AtomicFile of the same path) or removed. As with every
/// mapping, they are lost if a process truncates the file in place. The first byte is page-aligned.
class MappedFile {
 public:
  /// Throws std::runtime_error if the file is missing, unreadable, not a regular file or empty, or if it is a link and
  /// `links` refuses those.
  explicit MappedFile(const std::filesystem::path& path, Links links = Links::followed);

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile() {
    if (bytes_.data() != nullptr) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::span<const std::byte> bytes_;
};

inline MappedFile::MappedFile(const std::filesystem::path& path, Links links) {
  // O_NONBLOCK: opening a pipe without a writer would block forever.
  const int no_link = links == Links::refused ? O_NOFOLLOW : 0;
  const detail::Descriptor file = detail::open_descriptor(path, O_RDONLY | O_NONBLOCK | no_link);
  if (!file && errno == ELOOP && no_link != 0) {
    detail::throw_file_error(path, "cannot be opened for reading",
                             "it is a symbolic link, which may point outside the folder; allowed: a regular file, or "
                             "Links::followed for a trusted folder");
  }
  if (!file) detail::throw_system_error(path, "cannot be opened for reading", errno);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) detail::throw_system_error(path, "cannot be examined", errno);
  if (!S_ISREG(status.st_mode)) detail::throw_file_error(path, "cannot be mapped", "it is not a regular file");
  if (status.st_size == 0) detail::throw_file_error(path, "cannot be mapped", "it is empty");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* memory = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) detail::throw_system_error(path, "cannot be mapped", errno);
  bytes_ = {static_cast<const std::byte*>(memory), size};
}

}  // namespace moe_mamba::inline v0_2
