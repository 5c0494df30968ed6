#pragma once

#include <cerrno>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <system_error>

#include "moe_mamba/families/config.hpp"
#include "moe_mamba/io/atomic_file.hpp"
#include "moe_mamba/io/checksum.hpp"

/// Writes the two files of a checkpoint folder such that after an interruption at any point, matching ones are found.
///
/// The config has the checksum of the tensors that it was saved with. First it is written under another name, next to
/// the old one; then the tensors are written; then the config replaces the old one. Until the tensors are renamed into
/// place the folder holds the old model, and from then on the new one, whose config is the one with their checksum.
namespace moe_mamba::inline v0_2::families::detail {

inline constexpr const char *tensors_name = "model.safetensors", *config_name = "config.json",
                            *next_config_name = "config.next.json", *checksum_field = "tensors_checksum";

/// The checksum stored in a file of tensors, or "".
inline std::string stored_checksum(const SafetensorsFile& file) {
  const auto stored = file.metadata().find(moe_mamba::detail::checksum_key);
  return stored == file.metadata().end() ? "" : stored->second;
}

/// Whether the config was saved with tensors of this checksum. True if that is unknown, because one of them has none.
inline bool may_belong_to(const Config& config, const std::string& checksum) {
  return checksum.empty() || !config.has(checksum_field) || config.is_text(checksum_field, checksum);
}

inline void write_file(AtomicFile& file, const std::string& text) { file.write(std::as_bytes(std::span(text))); }

inline void remove_file(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) moe_mamba::detail::throw_system_error(path, "cannot be removed", error.value());
}

/// Whether the file exists and has this checksum.
inline bool holds(const std::filesystem::path& tensors, const std::string& checksum, Links links) {
  return moe_mamba::detail::type_at(tensors, Links::refused) != std::filesystem::file_type::not_found &&
         stored_checksum(SafetensorsFile(tensors, links)) == checksum;
}

/// Writes both files. Throws std::runtime_error if one cannot be written; the folder then holds the old model, or, if
/// only the last step failed, the new one.
inline void write_folder(const std::filesystem::path& folder, const std::string& config,
                         std::span<const TensorSource> tensors) {
  // Required by transformers.
  const auto metadata = moe_mamba::detail::with_checksum({{"format", "pt"}}, tensors);
  const std::string& checksum = metadata.at(moe_mamba::detail::checksum_key);
  const std::string text = with_text_field(config, checksum_field, checksum);
  AtomicFile last(folder / config_name), next(folder / next_config_name);
  write_file(last, text);
  write_file(next, text);
  next.commit();
  try {
    save_safetensors(folder / tensors_name, tensors, metadata);
  } catch (...) {
    if (!holds(folder / tensors_name, checksum, Links::followed)) remove_file(folder / next_config_name);
    throw;
  }
  last.commit();
  remove_file(folder / next_config_name);
}

}  // namespace moe_mamba::inline v0_2::families::detail
