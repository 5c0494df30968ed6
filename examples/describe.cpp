// describe CHECKPOINT_FOLDER...: the C++ definition that fits a checkpoint's config.json.
//
//   $ describe mamba-130m-hf
//   // mamba-130m-hf: mamba, layers: 24
//   using Net = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
//
// Symbolic links, which a download cache is full of, are followed: only config.json is read.
#include <algorithm>
#include <exception>
#include <iostream>
#include <moe_mamba/families/checkpoint_folder.hpp>

namespace {

void describe(const char* path) {
  const moe_mamba::families::CheckpointFolder folder(path, moe_mamba::Links::followed);
  const auto model = folder.architecture();
  std::cout << "// " << path << ": " << folder.family().name << ", layers: " << model.layers.size() << '\n';
  for (const auto& layer : model.layers) {
    const auto word = std::find_if(layer.words.begin(), layer.words.end(), [](auto& w) { return !w.also.empty(); });
    if (word == layer.words.end()) continue;
    std::cout << "// " << word->spelling << " is what the public code computes; " << word->also << " fits as well\n";
    break;
  }
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
