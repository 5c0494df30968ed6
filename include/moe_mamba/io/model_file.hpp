#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/io/checksum.hpp"
#include "moe_mamba/io/safetensors.hpp"
#include "moe_mamba/language/spelling.hpp"
#include "moe_mamba/model/model.hpp"

/// Models in safetensors files: one tensor per parameter, under its name, and the spelling of the definition.
namespace moe_mamba::inline v0_2 {

/// Whether a file may be loaded with a definition other than the one it was written by, if the parameters have the same
/// names and shapes: one with another activation or epsilon, say. A file that records no definition is always accepted.
enum class OtherDefinition { refused, accepted };

namespace detail {

/// Tensors of a checkpoint other than the parameters.
inline constexpr std::array<std::string_view, 4> training_tensors = {"training.first_moment", "training.second_moment",
                                                                     "training.remainder", "training.states"};

inline constexpr std::string_view own_prefix = "moe_mamba.";  // of all metadata that the library writes
inline constexpr const char* definition_key = "moe_mamba.definition";

/// Throws std::invalid_argument for a caller's metadata with a key that is reserved for the library.
inline void check_keys(const std::map<std::string, std::string>& metadata) {
  for (const auto& [key, value] : metadata) {
    require(!key.starts_with(own_prefix), "metadata key", in_quotes(key),
            "any that does not begin with \"moe_mamba.\"");
  }
}

/// The metadata with the definition added.
template <class Definition>
std::map<std::string, std::string> with_definition(std::map<std::string, std::string> metadata) {
  metadata[definition_key] = spelling<Definition>();
  return metadata;
}

/// A metadata value for a message: unquoted and in full if it is printable, as those that the library writes are.
inline std::string printable(const std::string& text) {
  const bool plain = text.size() <= 4000 && std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
  return plain ? text : in_quotes(text);
}

/// Throws std::runtime_error if the file has this metadata key with another value.
inline void check_metadata(const SafetensorsFile& file, const char* key, const std::string& field,
                           const std::string& wanted, const std::string& remedy) {
  const auto stored = file.metadata().find(key);
  if (stored == file.metadata().end() || stored->second == wanted) return;
  check_checksum(file);  // damage is reported first
  throw_content_error(file.path().string(), field, printable(stored->second), wanted + ", or " + remedy);
}

template <class Definition>
void check_definition(const SafetensorsFile& file,
                      const char* remedy = "OtherDefinition::accepted, which loads it if names and shapes agree") {
  check_metadata(file, definition_key, "the definition it was written by", spelling<Definition>(), remedy);
}

/// The parameters of a model as tensors to write.
template <class Definition, StorageScalar S>
std::vector<TensorSource> parameter_tensors(std::span<const S> parameters) {
  std::vector<TensorSource> tensors;
  Definition::visit_parameters([&](const Parameter& parameter) {
    const auto values =
        parameters.subspan(static_cast<std::size_t>(parameter.offset), static_cast<std::size_t>(parameter.size()));
    tensors.push_back({std::string(parameter.name.view()), data_type_of<S>,
                       std::vector<Index>(parameter.shape.begin(), parameter.shape.begin() + parameter.rank),
                       std::as_bytes(values)});
  });
  return tensors;
}

inline std::string shape_text(std::span<const Index> shape) {
  std::string text = "[";
  for (const Index extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

/// Throws std::runtime_error unless the file holds exactly the definition's parameters, in their shapes and as
/// floating-point numbers, apart from a checkpoint's tensors of the training state.
template <class Definition>
void check_parameters(const SafetensorsFile& file) {
  const std::string where = file.path().string();
  std::size_t known = 0;
  Definition::visit_parameters([&](const Parameter& parameter) {
    const TensorEntry& tensor = file.at(parameter.name.view());
    const std::span<const Index> shape(parameter.shape.data(), static_cast<std::size_t>(parameter.rank));
    const std::string name = "tensor " + in_quotes(tensor.name);
    if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) {
      throw_content_error(where, name + ": shape", shape_text(tensor.shape), shape_text(shape) + ", by the definition");
    }
    if (tensor.type != DataType::F64 && tensor.type != DataType::F32 && tensor.type != DataType::F16 &&
        tensor.type != DataType::BF16) {
      throw_content_error(where, name + ": dtype", std::string(name_of(tensor.type)), "F64, F32, F16 or BF16");
    }
    ++known;
  });
  check_checksum(file);
  const auto of_training = [](const TensorEntry& tensor) {
    return std::ranges::find(training_tensors, tensor.name) != training_tensors.end();
  };
  const auto training = static_cast<std::size_t>(std::ranges::count_if(file.tensors(), of_training));
  if (known + training == file.tensors().size()) return;
  for (const TensorEntry& tensor : file.tensors()) {
    bool wanted = of_training(tensor);
    Definition::visit_parameters([&](const Parameter& parameter) { wanted |= parameter.name.view() == tensor.name; });
    if (!wanted) {
      throw_content_error(where, "tensor", in_quotes(tensor.name), "only the parameters of the definition");
    }
  }
}

/// Converts a tensor and copies it to a device in chunks, so that the host does not need memory for all of it.
template <StorageScalar S, class Memory>
void write_converted(const TensorEntry& tensor, S* to) {
  constexpr std::size_t chunk = 1 << 16;
  std::vector<S> values(std::min(chunk, static_cast<std::size_t>(elements(tensor))));
  const auto width = static_cast<std::size_t>(bytes_of(tensor.type));
  for (std::size_t at = 0; at < tensor.data.size(); at += chunk * width) {
    TensorEntry part{tensor.name, tensor.type, {}, tensor.data.subspan(at)};
    if (part.data.size() > chunk * width) part.data = part.data.first(chunk * width);
    copy_converted(part, values.data());
    Memory::write(to + at / width, values.data(), static_cast<std::size_t>(elements(part)) * sizeof(S));
  }
}

/// Copies the parameters from a file that has passed check_parameters().
template <class Definition, StorageScalar S, class Backend>
void read_parameters(const SafetensorsFile& file, Model<Definition, S, Backend>& model) {
  using Memory = typename Backend::Memory;
  S* const parameters = model.parameters().data();
  Definition::visit_parameters([&](const Parameter& parameter) {
    const TensorEntry& tensor = file.at(parameter.name.view());
    if constexpr (Memory::on_host) {
      copy_converted(tensor, parameters + parameter.offset);
    } else if (tensor.type == data_type_of<S>) {
      Memory::write(parameters + parameter.offset, tensor.data.data(), tensor.data.size());
    } else {
      write_converted<S, Memory>(tensor, parameters + parameter.offset);
    }
  });
}

}  // namespace detail

/// Atomically writes a model's parameters, in their storage type, its definition and the caller's metadata. Throws
/// std::runtime_error if the file cannot be written, and std::invalid_argument for metadata whose key begins with
/// "moe_mamba.", as the library's own do.
template <class Definition, StorageScalar S, class Backend>
void save(const Model<Definition, S, Backend>& model, const std::filesystem::path& path,
          const std::map<std::string, std::string>& metadata = {}) {
  detail::check_keys(metadata);
  const auto values = HostNumbers<S>::template of<typename Backend::Memory>(model.parameters());
  const auto tensors = detail::parameter_tensors<Definition, S>(values.span());
  save_safetensors(path, tensors, detail::with_checksum(detail::with_definition<Definition>(metadata), tensors));
}

/// Reads parameters into a model, rounding to its storage type. Throws std::runtime_error, leaving the model unchanged,
/// for a file that cannot be read or is damaged, for one of another definition unless that is accepted, and for tensors
/// that are missing, unknown or of another shape.
template <class Definition, StorageScalar S, class Backend>
void load(Model<Definition, S, Backend>& model, const std::filesystem::path& path,
          OtherDefinition other = OtherDefinition::refused) {
  const SafetensorsFile file(path);
  if (other == OtherDefinition::refused) detail::check_definition<Definition>(file);
  detail::check_parameters<Definition>(file);
  detail::read_parameters(file, model);
}

/// A model with the parameters of a file; errors as above.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
Model<Definition, S, Backend> load(const std::filesystem::path& path,
                                   OtherDefinition other = OtherDefinition::refused) {
  const SafetensorsFile file(path);
  if (other == OtherDefinition::refused) detail::check_definition<Definition>(file);
  detail::check_parameters<Definition>(file);
  Model<Definition, S, Backend> model{Uninitialised{}};
  detail::read_parameters(file, model);
  return model;
}
/// With parameters of any other type: does not compile, as Model says.
template <class Definition, class S, class Backend = Cpu>
requires(!StorageScalar<S>) Model<Definition, S, Backend> load(const std::filesystem::path& path,
                                                               OtherDefinition other = OtherDefinition::refused);

}  // namespace moe_mamba::inline v0_2
