// describe CHECKPOINT_FOLDER...: prints the C++ definition that matches a checkpoint's config.json.
//
//   $ describe mamba-130m-hf
//   // mamba-130m-hf: mamba, layers: 24
//   using Net = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
//
// Symbolic links, as in download caches, are followed, because only config.json is read.
#include <exception>
#include <functional>
#include <iostream>
#include <moe_mamba/families/checkpoint_folder.hpp>
#include <string>

namespace {

using moe_mamba::families::OptionSpec;

/// Prints, as a comment, the first non-empty `sentence` about an option of a layer.
void print_first(const moe_mamba::families::Architecture& model,
                 const std::function<std::string(const OptionSpec&)>& sentence) {
  for (const auto& layer : model.layers) {
    for (const OptionSpec& option : layer.options) {
      const std::string text = sentence(option);
      if (text.empty()) continue;
      std::cout << "// " << text << '\n';
      return;
    }
  }
}

void describe(const char* path) {
  const moe_mamba::families::CheckpointFolder folder(path, moe_mamba::Links::followed);
  const auto model = folder.architecture();
  std::cout << "// " << path << ": " << folder.family().name << ", layers: " << model.layers.size() << '\n';
  print_first(model, [](const OptionSpec& option) {
    return option.alternative.empty()
               ? ""
               : option.spelling + " is what the public code computes; " + option.alternative + " matches as well";
  });
  print_first(model, [](const OptionSpec& option) {
    return !option.any_value ? ""
                             : option.spelling +
                                   " is the longest supported; a shorter context takes less memory and gives the same "
                                   "results for texts up to its length";
  });
  std::cout << "using Net = " << model.spelling() << ";\n";
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    std::cerr << "usage: describe CHECKPOINT_FOLDER...\n";
    return 2;
  }
  int failures = 0;
  for (int i = 1; i < count; ++i) {
    try {
      describe(arguments[i]);
    } catch (const std::exception& error) {
      std::cerr << error.what() << '\n';
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}
