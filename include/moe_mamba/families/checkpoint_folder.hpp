#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/families/families.hpp"
#include "moe_mamba/families/folder_files.hpp"
#include "moe_mamba/io/checksum.hpp"
#include "moe_mamba/io/floating_point_guard.hpp"
#include "moe_mamba/io/mapped_file.hpp"
#include "moe_mamba/io/safetensors.hpp"

namespace moe_mamba::inline v0_2::families {

namespace detail {

inline constexpr std::size_t config_limit = std::size_t{1} << 20, index_limit = std::size_t{16} << 20;

/// Reads a JSON file of a folder.
inline JsonValue read_json(const std::filesystem::path& path, std::size_t limit, Links links) {
  const MappedFile file(path, links);
  if (file.bytes().size() > limit) {
    moe_mamba::detail::throw_content_error(path.string(), "file size", std::to_string(file.bytes().size()) + " bytes",
                                           "at most " + std::to_string(limit));
  }
  return parse_json({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}, path.string());
}

/// Throws unless a file name is confined to its folder.
inline void check_shard_name(const std::string& index, const std::string& name) {
  const bool plain = name.size() <= 255 && name.ends_with(".safetensors") && name.front() != '.' &&
                     std::all_of(name.begin(), name.end(), [](char c) {
                       return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                              c == '_' || c == '.';
                     });
  if (plain) return;
  moe_mamba::detail::throw_content_error(
      index, "weight_map: file", moe_mamba::detail::in_quotes(name),
      "the name of a file in the same folder: letters, digits, '-', '_' and '.', ending in .safetensors");
}

}  // namespace detail

/// A checkpoint folder: config.json, and tensors in model.safetensors or sharded over the files listed in
/// model.safetensors.index.json. Files are memory-mapped; tensors are loaded on access.
///
/// Folders are untrusted input: nothing outside the folder is opened, and anything invalid throws a std::runtime_error
/// that names file, field, value and what is allowed.
class CheckpointFolder {
 public:
  explicit CheckpointFolder(std::filesystem::path folder, Links links = Links::refused)
      : folder_(std::move(folder)), links_(links), config_(open_config()), family_(&family_of(config_)) {}

  const std::filesystem::path& path() const { return folder_; }
  const Config& config() const { return config_; }
  const Family& family() const { return *family_; }
  Architecture architecture() const {
    const moe_mamba::detail::FloatingPointGuard guard;
    return family_->architecture(config_);
  }

  /// Maps the files of tensors and checks that they hold exactly what the index lists.
  void open_tensors() {
    const auto single = folder_ / detail::tensors_name, index = folder_ / "model.safetensors.index.json";
    if (moe_mamba::detail::type_at(single, Links::refused) != std::filesystem::file_type::not_found) {
      add_file(single);
      check_together(detail::stored_checksum(files_.back()));
    } else if (moe_mamba::detail::type_at(index, Links::refused) != std::filesystem::file_type::not_found) {
      open_shards(index.string(), detail::read_json(index, detail::index_limit, links_));
    } else {
      moe_mamba::detail::throw_file_error(
          folder_, "cannot be opened as a checkpoint",
          "it has neither model.safetensors nor model.safetensors.index.json (pytorch_model.bin is code rather than "
          "data; docs/checkpoints.md explains how to convert it)");
    }
  }

  std::size_t tensor_count() const { return tensors_.size(); }

  /// The tensor of that name, or null.
  const TensorEntry* find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : found->second.entry;
  }

  /// The name of a tensor that is not in `used` and not ignored by the family's code, or "".
  std::string other_than(const std::set<std::string>& used) const {
    const std::string_view ignored = family_->ignored_suffix;
    for (const auto& [name, location] : tensors_) {
      if (used.count(name) == 0 && (ignored.empty() || !name.ends_with(ignored))) return name;
    }
    return "";
  }

  /// Whether the tensors were written by the family's base model, whose names lack the prefix.
  bool of_base_model() const {
    const std::string_view prefix = family_->base;
    const auto first = tensors_.lower_bound(std::string(prefix));
    return !prefix.empty() && (first == tensors_.end() || !first->first.starts_with(prefix));
  }

  /// The path of the file of a tensor, which must exist, for messages.
  std::string file_of(const std::string& name) const { return files_[tensors_.at(name).file].path().string(); }

 private:
  struct Location {
    const TensorEntry* entry;
    std::size_t file;
  };

  Config open_config() const {
    if (moe_mamba::detail::type_at(folder_, Links::followed) != std::filesystem::file_type::directory) {
      moe_mamba::detail::throw_file_error(
          folder_, "cannot be opened as a checkpoint",
          "it is not a folder; allowed: a folder with config.json and model.safetensors");
    }
    // If a save was interrupted, the config of the new tensors may not have been renamed yet.
    if (moe_mamba::detail::type_at(folder_ / detail::next_config_name, Links::refused) !=
        std::filesystem::file_type::not_found) {
      Config next = read_config(detail::next_config_name);
      const JsonValue* checksum = next.find(detail::checksum_field);
      if (checksum != nullptr && checksum->kind == JsonValue::Kind::string &&
          detail::holds(folder_ / detail::tensors_name, checksum->string, links_)) {
        return next;
      }
    }
    return read_config(detail::config_name);
  }

  Config read_config(const char* name) const {
    const auto path = folder_ / name;
    return Config(path.string(), detail::read_json(path, detail::config_limit, links_));
  }

  /// Throws if config and tensors were not saved together.
  void check_together(const std::string& checksum) const {
    if (detail::may_belong_to(config_, checksum)) return;
    config_.refuse(detail::checksum_field, config_.find(detail::checksum_field)->text(),
                   moe_mamba::detail::in_quotes(checksum) + ", the checksum of " + detail::tensors_name +
                       ": the config was saved with other tensors (without this field the check is skipped)");
  }

  void add_file(const std::filesystem::path& path) {
    files_.emplace_back(path, links_);  // pointers to entries stay valid if the vector reallocates
    moe_mamba::detail::check_checksum(files_.back());
    // In the order of names, each insertion has its predecessor as a hint: many lookups would be slow.
    auto next = tensors_.begin();
    for (const std::uint32_t index : files_.back().by_name()) {
      const TensorEntry& entry = files_.back().tensors()[index];
      const std::size_t before = tensors_.size();
      next = std::next(tensors_.emplace_hint(next, entry.name, Location{&entry, files_.size() - 1}));
      if (tensors_.size() == before) {
        moe_mamba::detail::throw_duplicate(path.string(), "tensor name " + moe_mamba::detail::in_quotes(entry.name) +
                                                              ", which another file of the checkpoint has as well");
      }
    }
  }

  void open_shards(const std::string& index, const JsonValue& contents) {
    using moe_mamba::detail::in_quotes;
    using moe_mamba::detail::throw_content_error;
    const JsonValue* map = contents.find("weight_map");
    if (map == nullptr || map->kind != JsonValue::Kind::object) {
      throw_content_error(index, "weight_map", map == nullptr ? "missing" : map->text(), "an object");
    }
    std::map<std::string, std::string> listed;  // tensor → file
    std::set<std::string> names;
    for (const std::uint32_t i : map->sorted) {
      const JsonValue& file = map->elements[i];
      if (file.kind != JsonValue::Kind::string || file.string.empty()) {
        throw_content_error(index, "weight_map: file of " + in_quotes(map->keys[i]), file.text(), "a file name");
      }
      detail::check_shard_name(index, file.string);
      listed.emplace_hint(listed.end(), map->keys[i], file.string);
      names.insert(file.string);
    }
    if (names.size() > 4096) throw_content_error(index, "files", std::to_string(names.size()), "at most 4096");
    for (const std::string& name : names) add_file(folder_ / name);
    for (const auto& [tensor, file] : listed) {
      const auto found = tensors_.find(tensor);
      if (found == tensors_.end() || files_[found->second.file].path().filename() != file) {
        throw_content_error((folder_ / file).string(), "tensor " + in_quotes(tensor), "missing",
                            "the tensors listed in model.safetensors.index.json");
      }
    }
    for (const auto& [tensor, location] : tensors_) {
      if (listed.count(tensor) == 0) {
        throw_content_error(files_[location.file].path().string(), "tensor " + in_quotes(tensor),
                            "not listed in model.safetensors.index.json", "listed tensors");
      }
    }
  }

  std::filesystem::path folder_;
  Links links_;
  Config config_;
  const Family* family_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Location> tensors_;
};

}  // namespace moe_mamba::inline v0_2::families
