#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"

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
  --compare        also train plain Mamba with the same active parameters, for as many steps
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

namespace detail {

template <class Number>
Number number(const std::string& option, const std::string& text, Number lowest, Number highest, const char* allowed) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool ok = error == std::errc{} && end == text.data() + text.size() && value >= lowest && value <= highest;
  moe_mamba::require(ok, option.c_str(), text.empty() ? "empty" : text, allowed);
  return value;
}

}  // namespace detail

/// Throws std::invalid_argument for an unknown argument or a value out of range.
inline Options parse(int count, char** arguments) {
  Options options;
  bool only_texts = false;
  for (int i = 1; i < count; ++i) {
    std::string name = arguments[i];
    if (only_texts || name.size() < 2 || name[0] != '-') {
      moe_mamba::require(!name.empty(), "a file or folder", "empty", "the path of a file or folder");
      options.texts.emplace_back(name);
      continue;
    }
    std::optional<std::string> attached;
    if (const auto equals = name.find('='); equals != std::string::npos) {
      attached = name.substr(equals + 1);
      name.resize(equals);
    }
    const auto flag = [&] {
      moe_mamba::require(!attached, name.c_str(), attached.value_or(""), "no value");
      return true;
    };
    const auto value = [&] {
      if (attached) return *attached;
      moe_mamba::require(i + 1 < count, name.c_str(), "without a value", "one value, as shown by --help");
      return std::string(arguments[++i]);
    };
    if (name == "--") {
      only_texts = flag();
    } else if (name == "--minutes") {
      options.minutes = detail::number<double>(name, value(), 0.001, 1e5, "a number from 0.001 to 100000");
    } else if (name == "--steps") {
      options.steps = detail::number<Index>(name, value(), 1, 1'000'000'000, "an integer from 1 to 1000000000");
    } else if (name == "--threads") {
      options.threads = detail::number<int>(name, value(), 1, 1024, "an integer from 1 to 1024");
    } else if (name == "--seed") {
      options.seed =
          detail::number<std::uint64_t>(name, value(), 0, ~std::uint64_t{0}, "an integer from 0 to 2^64 - 1");
    } else if (name == "--tokens") {
      options.tokens = detail::number<Index>(name, value(), 0, 1'000'000'000, "an integer from 0 to 1000000000");
    } else if (name == "--prompt") {
      options.prompt = value();
      moe_mamba::require(!options.prompt->empty(), "--prompt", "empty", "a text of one byte or more");
    } else if (name == "--out") {
      options.folder = value();
      moe_mamba::require(!options.folder.empty(), "--out", "empty", "the path of a folder");
    } else if (name == "--cuda") {
      options.cuda = flag();
    } else if (name == "--compare") {
      options.compare = flag();
    } else if (name == "--fresh") {
      options.fresh = flag();
    } else if (name == "--help" || name == "-h") {
      options.help = flag();
    } else {
      moe_mamba::require(false, "the option", name, "those shown by --help");
    }
  }
  moe_mamba::require(!(options.minutes && options.steps), "--steps", "given together with --minutes", "one of the two");
  return options;
}

}  // namespace quickstart
