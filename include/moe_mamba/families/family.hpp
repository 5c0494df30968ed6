#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/families/architecture.hpp"
#include "moe_mamba/families/config.hpp"

namespace moe_mamba::inline v0_2::families {

/// A tensor of a public checkpoint, and the contiguous rows of a parameter of this library that it holds.
struct TensorPart {
  std::string name;
  std::string also;  // an alternative name, or empty
  std::vector<Index> shape;
  Index offset = 0;  // in elements from the parameter's beginning

  Index count() const {
    Index product = 1;
    for (const Index extent : shape) product *= extent;
    return product;
  }
};

/// A family of public checkpoints: its config format and its tensor names.
struct Family {
  const char* name;
  /// Whether a config.json is of this family.
  bool (*recognises)(const Config&);
  /// The model that a config.json describes. Throws if it has features that the library does not support.
  Architecture (*architecture)(const Config&);
  /// The tensors that hold a parameter of the model.
  std::vector<TensorPart> (*parts)(const Parameter&);
  /// The name of the head, under which a tied head may be stored a second time.
  const char* head;
  /// Whether the family's files store a tied head a second time.
  bool stores_tied_head;
  /// A config.json for a model, as far as the family can represent it. `type` is the data type: "float32".
  std::string (*config)(const Architecture&, const std::string& type);
  /// Alternative tensors to those of `parts`, or none.
  std::vector<TensorPart> (*other_parts)(const Parameter&) = nullptr;
  /// Prefix of the tensor names of the base model (all but the head), which files written by the base model lack; or
  /// "".
  const char* base = "";
  /// Suffix of the names of tensors that the family's code ignores, as they follow from the config; or "".
  const char* ignored_suffix = "";
};

/// A tensor that holds a whole parameter.
inline TensorPart whole(const Parameter& parameter, std::string name, std::string also = "") {
  return {std::move(name), std::move(also), {parameter.shape.begin(), parameter.shape.begin() + parameter.rank}, 0};
}

/// The tensors of a matrix, or of a stack of matrices (experts), each split into `blocks` blocks of equally many rows.
/// `name(matrix, block)` gives their names.
template <class Name>
std::vector<TensorPart> block_parts(const Parameter& parameter, Index blocks, const Name& name) {
  const bool is_stack = parameter.rank == 3;
  const Index matrices = is_stack ? parameter.shape[0] : 1;
  const Index rows = parameter.shape[is_stack ? 1 : 0] / blocks, columns = parameter.shape[is_stack ? 2 : 1];
  std::vector<TensorPart> parts;
  for (Index matrix = 0; matrix < matrices; ++matrix) {
    for (Index block = 0; block < blocks; ++block) {
      parts.push_back({name(matrix, block), "", {rows, columns}, (matrix * blocks + block) * rows * columns});
    }
  }
  return parts;
}

/// The text with its prefix replaced, if it has this prefix.
inline std::string with_prefix(std::string_view text, std::string_view prefix, std::string_view replacement) {
  if (!text.starts_with(prefix)) return std::string(text);
  return std::string(replacement) + std::string(text.substr(prefix.size()));
}

}  // namespace moe_mamba::inline v0_2::families
