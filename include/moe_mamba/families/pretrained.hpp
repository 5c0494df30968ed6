#pragma once

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "moe_mamba/families/architecture_of.hpp"
#include "moe_mamba/families/checkpoint_folder.hpp"
#include "moe_mamba/io/model_file.hpp"

/// Loads checkpoints of public families, folders with config.json and safetensors files, and writes checkpoints that
/// the family's own code can load.
///
///   auto model = load<Net, bfloat16>(Pretrained{"mamba-130m-hf"});
///   save(model, Pretrained{"mine"});
namespace moe_mamba::inline v0_2 {

/// A checkpoint's folder.
struct Pretrained {
  std::filesystem::path folder;
  /// Whether files may be symbolic links, which can point anywhere: for trusted folders, such as a download cache.
  Links links = Links::refused;
  /// The family to write if several can represent the model: "mamba_ssm". Empty: the first that can.
  std::string family = {};
};

namespace families {

namespace detail {

using moe_mamba::detail::in_quotes;
using moe_mamba::detail::throw_content_error;

/// Throws unless the config describes this definition.
inline void check_architecture(const CheckpointFolder& checkpoint, const Architecture& definition) {
  const Architecture theirs = checkpoint.architecture();
  const auto found = difference(theirs, definition);
  if (!found) return;
  throw_content_error(checkpoint.config().file(), found->field, found->given,
                      found->allowed + "; the definition that matches this checkpoint: " + theirs.spelling());
}

/// A tensor of a checkpoint and its offset in the parameter array.
struct MappedTensor {
  const TensorEntry* tensor;
  Index offset;  // from the beginning of all parameters
};

class TensorMap {
 public:
  explicit TensorMap(const CheckpointFolder& checkpoint) : checkpoint_(checkpoint) {}

  void add(const Parameter& parameter) {
    const Family& family = checkpoint_.family();
    auto parts = named(family.parts(parameter));
    if (family.other_parts != nullptr && checkpoint_.find(parts.front().name) == nullptr) {
      auto other = named(family.other_parts(parameter));
      if (!other.empty() && checkpoint_.find(other.front().name) != nullptr) parts = std::move(other);
    }
    for (TensorPart& part : parts) {
      parts_.push_back(std::move(part));
      offsets_.push_back(parameter.offset + part.offset);
    }
  }

  /// Finds all tensors. `tied_head`: the head is the embedding, and may be stored a second time.
  std::vector<MappedTensor> finish(bool tied_head) {
    for (const TensorPart& part : parts_) {
      for (const std::string* name : {&part.name, &part.also}) {
        if (!name->empty()) known_.insert(*name);
      }
    }
    const TensorEntry* again = tied_head ? checkpoint_.find(checkpoint_.family().head) : nullptr;
    if (again != nullptr) known_.insert(again->name);
    const std::string other = checkpoint_.other_than(known_);
    std::vector<MappedTensor> tensors;
    for (std::size_t i = 0; i < parts_.size(); ++i) tensors.push_back({&find(parts_[i], other), offsets_[i]});
    if (!other.empty()) {
      throw_content_error(
          checkpoint_.file_of(other), "tensor", in_quotes(other),
          std::string("only the tensors of a ") + checkpoint_.family().name + " model of this definition");
    }
    if (again != nullptr) check_tied(*again, *tensors.front().tensor);
    return tensors;
  }

 private:
  /// The parts with the names that this checkpoint uses.
  std::vector<TensorPart> named(std::vector<TensorPart> parts) const {
    if (!checkpoint_.of_base_model()) return parts;
    const char* const base = checkpoint_.family().base;
    for (TensorPart& part : parts) {
      part.name = with_prefix(part.name, base, "");
      part.also = with_prefix(part.also, base, "");
    }
    return parts;
  }

  const TensorEntry& find(const TensorPart& part, const std::string& other) const {
    const TensorEntry* tensor = checkpoint_.find(part.name);
    const TensorEntry* also = part.also.empty() ? nullptr : checkpoint_.find(part.also);
    if (tensor != nullptr && also != nullptr) {
      fail(in_quotes(part.also), "another name of " + in_quotes(part.name) + ", which the checkpoint has as well",
           "one of the two");
    }
    if (tensor == nullptr) tensor = also;
    if (tensor == nullptr) {
      fail(in_quotes(part.name), "missing",
           "one of the " + std::to_string(checkpoint_.tensor_count()) + " tensors of the checkpoint" +
               (other.empty() ? "" : ", of which " + in_quotes(other) + " belongs to no parameter"));
    }
    if (!std::equal(part.shape.begin(), part.shape.end(), tensor->shape.begin(), tensor->shape.end())) {
      fail(in_quotes(tensor->name) + ": shape", moe_mamba::detail::text_of(tensor->shape),
           moe_mamba::detail::text_of(part.shape) + ", by the definition");
    }
    if (tensor->type != DataType::F64 && tensor->type != DataType::F32 && tensor->type != DataType::F16 &&
        tensor->type != DataType::BF16) {
      fail(in_quotes(tensor->name) + ": dtype", std::string(name_of(tensor->type)), "F64, F32, F16 or BF16");
    }
    return *tensor;
  }

  [[noreturn]] void fail(const std::string& what, const std::string& value, const std::string& allowed) const {
    throw_content_error(checkpoint_.path().string(), "tensor " + what, value, allowed);
  }

  /// A stored head that is tied to the embedding must have the same values.
  void check_tied(const TensorEntry& head, const TensorEntry& embedding) const {
    if (head.type != embedding.type || head.shape != embedding.shape ||
        std::memcmp(head.data.data(), embedding.data.data(), head.data.size()) != 0) {
      fail(in_quotes(head.name), "different from " + in_quotes(embedding.name),
           "the same values, as the config says that they are tied (Head in a definition means an untied head)");
    }
  }

  const CheckpointFolder& checkpoint_;
  std::vector<TensorPart> parts_;
  std::vector<Index> offsets_;
  std::set<std::string> known_;
};

/// The tensors of a definition's parameters. Everything is checked before any number is read.
template <class Definition>
std::vector<MappedTensor> map_tensors(CheckpointFolder& checkpoint) {
  static_assert(TokenDefinition<Definition>,
                "checkpoints of public families are language models: the definition must be a LanguageModel<...>");
  check_architecture(checkpoint, architecture_of(Of<Definition>{}));
  checkpoint.open_tensors();
  TensorMap map(checkpoint);
  Definition::visit_parameters([&](const Parameter& parameter) { map.add(parameter); });
  return map.finish(Definition::tied_head);
}

template <StorageScalar S>
void copy_tensors(const std::vector<MappedTensor>& tensors, S* parameters) {
  for (const MappedTensor& part : tensors) copy_converted(*part.tensor, parameters + part.offset);
}

template <class Definition, StorageScalar S, class Backend>
void read_tensors(const std::vector<MappedTensor>& tensors, Model<Definition, S, Backend>& model) {
  if constexpr (Model<Definition, S, Backend>::on_host) {
    copy_tensors(tensors, model.parameters().data());
  } else {
    std::vector<S> values(static_cast<std::size_t>(Definition::parameters));
    copy_tensors(tensors, values.data());
    model.write(values);
  }
}

/// The family to write a model in, and a config.json from which the whole model can be read back.
struct Writing {
  const Family* family;
  std::string config;
};

inline Writing writing(const Architecture& model, const std::string& wanted, const char* type) {
  for (const LayerSpec& layer : model.layers) {
    require(!layer.options.empty(), "definition", model.spelling(),
            [&] { return "one that a family can represent; none has " + layer.name; });
  }
  std::string reasons;
  for (const Family* family : all) {
    if (!wanted.empty() && wanted != family->name) continue;
    try {
      std::string text = family->config(model, type);
      const Config config("config.json", parse_json(text, "config.json"));
      const auto found = difference(family->architecture(config), model);
      if (!found) return {family, std::move(text)};
      reasons += std::string("; ") + family->name + ": " + found->field + " would be " + found->given + ", not " +
                 found->allowed;
    } catch (const std::runtime_error& error) {
      reasons += std::string("; ") + family->name + ": " + error.what();
    }
  }
  require(!reasons.empty(), "family", wanted, [] { return names(); });
  throw std::invalid_argument(error_text("definition", model.spelling(), "one that a family can represent" + reasons));
}

inline const char* type_name(DataType type) {
  return type == DataType::F64 ? "float64" : type == DataType::BF16 ? "bfloat16" : "float32";
}

}  // namespace detail
}  // namespace families

/// Reads a checkpoint's parameters into a model, rounding to its storage type. Throws std::runtime_error, leaving the
/// model unchanged, if the config describes another model (the message shows the matching definition), and for tensors
/// that are missing, unknown, of another shape or not floating-point.
template <class Definition, StorageScalar S, class Backend>
void load(Model<Definition, S, Backend>& model, const Pretrained& pretrained) {
  families::CheckpointFolder checkpoint(pretrained.folder, pretrained.links);
  const auto tensors = families::detail::map_tensors<Definition>(checkpoint);
  families::detail::read_tensors(tensors, model);
}

/// A model with a checkpoint's parameters; errors as above.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
Model<Definition, S, Backend> load(const Pretrained& pretrained) {
  families::CheckpointFolder checkpoint(pretrained.folder, pretrained.links);
  const auto tensors = families::detail::map_tensors<Definition>(checkpoint);
  Model<Definition, S, Backend> model{Uninitialised{}};
  families::detail::read_tensors(tensors, model);
  return model;
}
/// With parameters of any other type: does not compile, as Model says.
template <class Definition, class S, class Backend = Cpu>
requires(!StorageScalar<S>) Model<Definition, S, Backend> load(const Pretrained& pretrained);

/// Writes a folder with config.json and model.safetensors, which the family's code can load. Creates the folder if it
/// is missing. If the program is interrupted at any point, load() finds either the complete old model or the complete
/// new one. Throws std::invalid_argument, before anything is written, if no family can represent the definition, and
/// std::runtime_error if a file cannot be written: the folder then holds the old model, or the new one if only the last
/// step failed.
template <class Definition, StorageScalar S, class Backend>
void save(const Model<Definition, S, Backend>& model, const Pretrained& pretrained) {
  static_assert(TokenDefinition<Definition>,
                "checkpoints of public families are language models: the definition must be a LanguageModel<...>");
  const auto to = families::detail::writing(families::architecture_of(families::Of<Definition>{}), pretrained.family,
                                            families::detail::type_name(data_type_of<S>));
  const auto numbers = HostNumbers<S>::template of<typename Backend::Memory>(model.parameters());
  const std::span<const S> values = numbers.span();
  std::vector<TensorSource> tensors;
  Definition::visit_parameters([&](const Parameter& parameter) {
    for (const families::TensorPart& part : to.family->parts(parameter)) {
      const auto first = static_cast<std::size_t>(parameter.offset + part.offset);
      tensors.push_back({part.name, data_type_of<S>, part.shape,
                         std::as_bytes(values.subspan(first, static_cast<std::size_t>(part.count())))});
    }
  });
  if (Definition::tied_head && to.family->stores_tied_head) {
    tensors.push_back(tensors.front());
    tensors.back().name = to.family->head;
  }
  std::error_code error;
  std::filesystem::create_directories(pretrained.folder, error);
  if (error) detail::throw_system_error(pretrained.folder, "cannot be created", error.value());
  families::detail::write_folder(pretrained.folder, to.config, tensors);
}

}  // namespace moe_mamba::inline v0_2
