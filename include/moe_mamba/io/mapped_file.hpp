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

namespace moe_mamba {

/// Whether a path may be a symbolic link.
enum class Links { refused, followed };

/// A whole file as read-only memory, read by the system when it is touched, shared by all processes that map it.
///
/// The bytes stay valid when the file is replaced or removed (an AtomicFile of the same path does the former), but a
/// process that shortens the file in place takes them away, as with every mapping. The first byte is aligned to a page.
class MappedFile {
 public:
  /// Throws std::runtime_error if the file is missing, unreadable, not a regular file or empty, or a link where those are
  /// refused.
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
  // O_NONBLOCK: opening a pipe that nobody writes would wait for ever.
  const int no_link = links == Links::refused ? O_NOFOLLOW : 0;
  const detail::Descriptor file = detail::open_descriptor(path, O_RDONLY | O_NONBLOCK | no_link);
  if (!file && errno == ELOOP && no_link != 0) {
    detail::throw_file_error(path, "cannot be opened for reading",
                             "it is a symbolic link, which may lead out of the folder; allowed: a regular file, or "
                             "Links::followed for a folder that you trust");
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

}  // namespace moe_mamba
