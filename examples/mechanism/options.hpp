#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "support/arguments.hpp"
#include "systems.hpp"
#include "tasks.hpp"

/// The command-line options.
namespace mechanism {

inline constexpr std::string_view help_text = R"(usage: mechanism [options]

Trains Mamba, MoE-Mamba and a Transformer on selective copying and on induction heads, the two synthetic tasks of the
paper on Mamba, tests them on sequences of many lengths and writes mechanism.csv. Ctrl-C ends it; the results of
the runs that are finished are kept, and running it again does the others.

  --out FOLDER     output folder (paper-run)
  --threads N      number of runs side by side, of one thread each (all hardware threads)
  --seed N         seed of initialisation and examples (1)
  --tasks LIST     selective-copying, induction-heads or both, separated by a comma (both)
  --longest N      longest tested sequence, a power of 2 from 256 to 65536 (4096)
  --fresh          start over, without the results in the folder
  --small          tasks that are learned within seconds, as a test
  --help           this text
)";

struct Options {
  std::filesystem::path folder = "paper-run";
  std::vector<Task> tasks{all_tasks.begin(), all_tasks.end()};
  std::optional<Index> longest;
  std::uint64_t seed = 1;
  int threads = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 1024u));
  bool fresh = false;
  bool small = false;
  bool help = false;
};

namespace detail {

/// The tasks of a list such as "selective-copying,induction-heads", each once, in the order of all_tasks.
inline std::vector<Task> tasks_of(const std::string& option, const std::string& list) {
  std::array<bool, all_tasks.size()> wanted = {};
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string name = list.substr(begin, end - begin);
    const auto found =
        std::find_if(all_tasks.begin(), all_tasks.end(), [&](Task task) { return name_of(task) == name; });
    require(found != all_tasks.end(), option.c_str(), name.empty() ? "empty" : name,
            "selective-copying, induction-heads or both, separated by a comma");
    wanted[static_cast<std::size_t>(found - all_tasks.begin())] = true;
    begin = end + 1;
  }
  std::vector<Task> tasks;
  for (std::size_t i = 0; i < all_tasks.size(); ++i) {
    if (wanted[i]) tasks.push_back(all_tasks[i]);
  }
  return tasks;
}

}  // namespace detail

/// Throws std::invalid_argument for an unknown argument or a value out of range.
inline Options parse(int count, char** arguments) {
  Options options;
  support::Arguments argument(count, arguments);
  while (argument.next()) {
    const std::string& name = argument.name();
    if (name == "--out") {
      options.folder = argument.value();
      require(!options.folder.empty(), "--out", "empty", "the path of a folder");
    } else if (name == "--threads") {
      options.threads = argument.value<int>(1, 1024, "an integer from 1 to 1024");
    } else if (name == "--seed") {
      options.seed = argument.value<std::uint64_t>(0, ~std::uint64_t{0}, "an integer from 0 to 2^64 - 1");
    } else if (name == "--tasks") {
      options.tasks = detail::tasks_of(name, argument.value());
    } else if (name == "--longest") {
      const char* allowed = "a power of 2 from 256 to 65536";
      const auto longest = argument.value<Index>(256, longest_length, allowed);
      require((longest & (longest - 1)) == 0, "--longest", longest, allowed);
      options.longest = longest;
    } else if (name == "--fresh") {
      options.fresh = true;
    } else if (name == "--small") {
      options.small = true;
    } else if (name == "--help" || name == "-h") {
      options.help = true;
    } else {
      require(false, "the option", name, "those shown by --help");
    }
  }
  return options;
}

}  // namespace mechanism
