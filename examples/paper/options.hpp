#pragma once

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "support/arguments.hpp"

/// The command-line options of the paper's comparison.
namespace paper {

using moe_mamba::Index;

inline constexpr std::string_view help_text = R"(usage: paper.sh [files or folders…] [options]

Trains plain Mamba, MoE-Mamba and other systems on the same bytes and writes one page that compares them, paper.html.
Without files it reads the documentation, C, C++ and Python sources of this machine's packages. Ctrl-C saves every run;
running it again resumes.

  --hours H        after the comparison on two cores (half an hour), more systems for as long as H hours allow in all
  --cuda           train the larger systems on a CUDA device instead; several visits of --minutes add up
  --minutes M      with --cuda: stop after M minutes, with everything saved
  --full           with --cuda: the paper's own 25 million active parameters (days)
  --mechanism      selective copying and induction heads instead (minutes)
  --threads N      runs to train side by side, one thread each (all hardware threads)
  --seeds N        runs of each of the main systems (3)
  --steps N        steps of a run, instead of the recipe's
  --out FOLDER     output folder (paper-run)
  --fresh          start over, without what the folder has
  --help           this text
)";

struct Options {
  std::vector<std::filesystem::path> texts;
  std::filesystem::path folder = "paper-run";
  std::optional<double> hours, minutes;
  std::optional<Index> steps;
  Index seeds = 3;
  int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  bool cuda = false, full = false, fresh = false, help = false;
};

/// Throws std::invalid_argument for an unknown argument or a value out of range.
inline Options parse(int count, char** arguments) {
  Options options;
  support::Arguments argument(count, arguments);
  while (argument.next()) {
    const std::string& name = argument.name();
    if (argument.is_path()) {
      options.texts.emplace_back(name);
    } else if (name == "--hours") {
      options.hours = argument.value<double>(0.01, 1e4, "a number from 0.01 to 10000");
    } else if (name == "--minutes") {
      options.minutes = argument.value<double>(0.01, 1e6, "a number from 0.01 to 1000000");
    } else if (name == "--steps") {
      options.steps = argument.value<Index>(20, 1'000'000'000, "an integer from 20 to 1000000000");
    } else if (name == "--seeds") {
      options.seeds = argument.value<Index>(1, 100, "an integer from 1 to 100");
    } else if (name == "--threads") {
      options.threads = argument.value<int>(1, 1024, "an integer from 1 to 1024");
    } else if (name == "--out") {
      options.folder = argument.value();
      moe_mamba::require(!options.folder.empty(), "--out", "empty", "the path of a folder");
    } else if (name == "--cuda") {
      options.cuda = true;
    } else if (name == "--full") {
      options.full = true;
    } else if (name == "--fresh") {
      options.fresh = true;
    } else if (name == "--help" || name == "-h") {
      options.help = true;
    } else {
      moe_mamba::require(false, "the option", name, "those shown by --help");
    }
  }
  moe_mamba::require(!options.full || options.cuda, "--full", "given without --cuda",
                     "both, as it takes days on a GPU");
  return options;
}

}  // namespace paper
