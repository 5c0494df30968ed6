#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "families/definitions.hpp"
#include "families/fixture.hpp"
#include "support/floating_point_traps.hpp"
#include "support/folder.hpp"

/// Modified copies of the fixtures' folders.
namespace test {

/// The message from opening a copy of a fixture after `change(folder)`, with floating-point traps enabled.
template <class Definition = SmallMamba, class Change>
std::string refusal(const Change& change, const char* fixture = "mamba") {
  const Folder folder;
  for (const auto& entry : std::filesystem::directory_iterator(fixture_folder(fixture))) {
    std::filesystem::copy(entry.path(), folder.path() / entry.path().filename());
  }
  change(folder);
  const FloatingPointTraps traps;
  return message_of<std::runtime_error>([&] { (void)load<Definition>(Pretrained{folder.path()}); });
}

/// The config of a fixture with `from` replaced.
inline void edit(const std::filesystem::path& path, const std::string& from, const std::string& to) {
  std::string text = read_bytes(path);
  const auto at = text.find(from);
  REQUIRE(at != text.npos);
  write_bytes(path, text.replace(at, from.size(), to));
}

/// The fixture's tensors, changed.
template <class Change>
void rewrite(const std::filesystem::path& path, const Change& change) {
  std::vector<TensorSource> tensors;
  std::vector<std::vector<std::byte>> memory;
  {
    const SafetensorsFile file(path);
    for (const TensorEntry& entry : file.tensors()) {
      memory.emplace_back(entry.data.begin(), entry.data.end());
      tensors.push_back({entry.name, entry.type, entry.shape, memory.back()});
    }
  }
  change(tensors);
  save_safetensors(path, tensors);
}

inline TensorSource& find(std::vector<TensorSource>& tensors, const std::string& name) {
  const auto at = std::find_if(tensors.begin(), tensors.end(), [&](const auto& tensor) { return tensor.name == name; });
  REQUIRE(at != tensors.end());
  return *at;
}

}  // namespace test
