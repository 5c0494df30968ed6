#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "support/arguments.hpp"

/// The command-line options of the quickstart.
namespace quickstart {

using moe_mamba::Index;

inline constexpr std::string_view help_text = R"(usage: quickstart [files or folders…] [options]

Trains a small MoE-Mamba on the bytes of the files, writes a report, saves the model, loads it again and generates
text. Without files it trains on the headers of Eigen. Ctrl-C saves a checkpoint and exits; running it again resumes.

  --minutes M      approximate training time (3)
  --steps N        number of training steps, instead of a time
  --threads N      number of threads (all hardware threads)
  --cuda           train on a CUDA device
  --out FOLDER     output folder (quickstart-run)
  --seed N         seed of initialisation, batches and generated text (1)
  --prompt TEXT    beginning of the generated text (a line of the held-out text)
  --tokens N       number of bytes to generate (600)
  --compare        train a smaller pair instead: MoE-Mamba, then plain Mamba with as many active parameters and steps
  --fresh          start over, ignoring checkpoints in the folder
  --help           this text
)";

struct Options {
  std::vector<std::filesystem::path> texts;
  std::filesystem::path folder = "quickstart-run";
  std::optional<double> minutes;
  std::optional<Index> steps;
  std::optional<std::uint64_t> seed;
  std::optional<std::string> prompt;
  Index tokens = 600;
  int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  bool cuda = false;
  bool compare = false;
  bool fresh = false;
  bool help = false;
};

/// Throws std::invalid_argument for an unknown argument or a value out of range.
inline Options parse(int count, char** arguments) {
  Options options;
  support::Arguments argument(count, arguments);
  while (argument.next()) {
    const std::string& name = argument.name();
    if (argument.is_path()) {
      options.texts.emplace_back(name);
    } else if (name == "--minutes") {
      options.minutes = argument.value<double>(0.001, 1e5, "a number from 0.001 to 100000");
    } else if (name == "--steps") {
      options.steps = argument.value<Index>(1, 1'000'000'000, "an integer from 1 to 1000000000");
    } else if (name == "--threads") {
      options.threads = argument.value<int>(1, 1024, "an integer from 1 to 1024");
    } else if (name == "--seed") {
      options.seed = argument.value<std::uint64_t>(0, ~std::uint64_t{0}, "an integer from 0 to 2^64 - 1");
    } else if (name == "--tokens") {
      options.tokens = argument.value<Index>(0, 1'000'000'000, "an integer from 0 to 1000000000");
    } else if (name == "--prompt") {
      options.prompt = argument.value();
      moe_mamba::require(!options.prompt->empty(), "--prompt", "empty", "a text of one byte or more");
    } else if (name == "--out") {
      options.folder = argument.value();
      moe_mamba::require(!options.folder.empty(), "--out", "empty", "the path of a folder");
    } else if (name == "--cuda") {
      options.cuda = true;
    } else if (name == "--compare") {
      options.compare = true;
    } else if (name == "--fresh") {
      options.fresh = true;
    } else if (name == "--help" || name == "-h") {
      options.help = true;
    } else {
      moe_mamba::require(false, "the option", name, "those shown by --help");
    }
  }
  moe_mamba::require(!(options.minutes && options.steps), "--steps", "given together with --minutes", "one of the two");
  return options;
}

}  // namespace quickstart
