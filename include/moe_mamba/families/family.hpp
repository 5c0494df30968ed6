#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/families/config.hpp"
#include "moe_mamba/families/words.hpp"

namespace moe_mamba::families {

/// A tensor of a public checkpoint, and the rows of one of our parameters that it holds: they are contiguous.
struct TensorPart {
  std::string name;
  std::string also;  // another name that is met, or empty
  std::vector<Index> shape;
  Index offset = 0;  // elements from the parameter's begin

  Index count() const {
    Index product = 1;
    for (const Index extent : shape) product *= extent;
    return product;
  }
};

/// A family of public checkpoints: how it says what a model is, and how it names tensors.
struct Family {
  const char* name;
  /// Is this a config.json of the family?
  bool (*recognises)(const Config&);
  /// The model that a config.json describes. Throws where it holds what the library does not compute.
  Architecture (*architecture)(const Config&);
  /// The tensors that hold a parameter of the model.
  std::vector<TensorPart> (*parts)(const Parameter&);
  /// What a head that is the embedding is called where it is stored again all the same.
  const char* head;
  /// The files hold a tied head twice.
  bool stores_tied_head;
  /// A config.json that says as much of a model as the family can. `type` is that of the numbers: "float32".
  std::string (*config)(const Architecture&, const std::string& type);
  /// Other tensors that are met in the place of those of `parts`, or none.
  std::vector<TensorPart> (*other_parts)(const Parameter&) = nullptr;
  /// What names of the model's body begin with, and do not in files of the base model, which is all but the head; or "".
  const char* base = "";
  /// The end of names of tensors that follow from the config, which the family's code ignores; or "".
  const char* ignored_suffix = "";
};

/// A tensor that holds a whole parameter.
inline TensorPart whole(const Parameter& parameter, std::string name, std::string also = "") {
  return {std::move(name), std::move(also), {parameter.shape.begin(), parameter.shape.begin() + parameter.rank}, 0};
}

/// The tensors of a matrix, or of a stack of matrices (experts), each cut into `blocks` blocks of as many rows:
/// `name(matrix, block)` says what they are called.
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

/// The text with its beginning replaced, if it is this one.
inline std::string with_prefix(std::string_view text, std::string_view prefix, std::string_view replacement) {
  if (!text.starts_with(prefix)) return std::string(text);
  return std::string(replacement) + std::string(text.substr(prefix.size()));
}

}  // namespace moe_mamba::families
