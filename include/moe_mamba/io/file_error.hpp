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
namespace moe_mamba {

/// Whether a path may be a symbolic link.
enum class Links { refused, followed };

namespace detail {

/// "<path>: <what>: <reason>"
[[noreturn]] inline void throw_file_error(const std::filesystem::path& path, const std::string& what,
                                          const std::string& reason) {
  throw FileError(shown_path(path.string()) + ": " + what + ": " + reason);
}

/// The same with the system's words for an error number.
[[noreturn]] inline void throw_system_error(const std::filesystem::path& path, const std::string& what, int code) {
  throw_file_error(path, what, std::generic_category().message(code));
}

/// "<file>: <field> is <value>; allowed: <allowed>"
[[noreturn]] inline void throw_content_error(const std::string& file, const std::string& field,
                                             const std::string& value, const std::string& allowed) {
  throw FileError(shown_path(file) + ": " + error_text(field.c_str(), value, allowed));
}

/// "not valid at byte 7 (…)": a JSON parser's complaint without the text that it quotes, which may be long, and anything.
inline std::string invalid_json(std::size_t position, std::string_view complaint) {
  const std::string_view without_text = complaint.substr(0, complaint.find("; last read"));
  return "not valid at byte " + std::to_string(position) + " (" + std::string(without_text.substr(0, 200)) + ")";
}

/// What lies at a path: not_found where nothing does, or, where links are followed, where one leads nowhere. Throws
/// std::runtime_error where that cannot be told.
inline std::filesystem::file_type type_at(const std::filesystem::path& path, Links links) {
  std::error_code error;
  const auto status =
      links == Links::followed ? std::filesystem::status(path, error) : std::filesystem::symlink_status(path, error);
  if (!std::filesystem::status_known(status)) throw_system_error(path, "cannot be examined", error.value());
  return status.type();
}

}  // namespace detail

}  // namespace moe_mamba
