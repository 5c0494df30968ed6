#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/error.hpp"
#include "moe_mamba/io/quoted_text.hpp"

/// Errors of files: FileError naming the path, what went wrong and why.
namespace moe_mamba::inline v0_2 {

/// Whether a path may be a symbolic link.
enum class Links { refused, followed };

namespace detail {

/// "<path>: <what>: <reason>"
[[noreturn]] inline void throw_file_error(const std::filesystem::path& path, const std::string& what,
                                          const std::string& reason) {
  throw FileError(shown_path(path.string()) + ": " + what + ": " + reason);
}

/// The same with the system's message for an error number.
[[noreturn]] inline void throw_system_error(const std::filesystem::path& path, const std::string& what, int code) {
  throw_file_error(path, what, std::generic_category().message(code));
}

/// "<file>: <field> is <value>; allowed: <allowed>"
[[noreturn]] inline void throw_content_error(const std::string& file, const std::string& field,
                                             const std::string& value, const std::string& allowed) {
  throw FileError(shown_path(file) + ": " + error_text(field.c_str(), value, allowed));
}

/// "<file>: duplicate <what>"
[[noreturn]] inline void throw_duplicate(const std::string& file, const std::string& what) {
  throw std::runtime_error(file + ": duplicate " + what);
}

/// The type of the file at a path: not_found if there is none, or if a followed link is dangling. Throws
/// std::runtime_error if that cannot be determined.
inline std::filesystem::file_type type_at(const std::filesystem::path& path, Links links) {
  std::error_code error;
  const auto status =
      links == Links::followed ? std::filesystem::status(path, error) : std::filesystem::symlink_status(path, error);
  if (!std::filesystem::status_known(status)) throw_system_error(path, "cannot be examined", error.value());
  return status.type();
}

}  // namespace detail

}  // namespace moe_mamba::inline v0_2
