// Measures the library on this machine, compared to the machine's ceilings. See docs/benchmarks.md.

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <thread>

#include "ceilings.hpp"
#include "harness.hpp"

namespace benchmarks {

namespace {

constexpr struct {
  const char* name;
  void (*run)(Report&);
} groups[] = {{"gemm", gemm},
              {"scan", scan},
              {"convolution", convolution},
              {"attention", attention},
              {"moe", moe},
              {"mamba-experts", mamba_experts},
              {"mamba-130m", mamba_130m},
              {"moe-mamba-416m", moe_mamba_416m},
              {"sequence-model", sequence_model}};

constexpr const char* usage =
    "usage: benchmarks [--quick] [--only GROUP]... [--threads COUNT] [--processor-time] [--json FILE]\n"
    "  --quick          small shapes, few repeats\n"
    "  --only GROUP     gemm, scan, convolution, attention, moe, mamba-experts, mamba-130m, moe-mamba-416m or "
    "sequence-model; may be "
    "repeated\n"
    "  --threads COUNT  measure with 1 and COUNT threads (default: all hardware threads)\n"
    "  --processor-time measure CPU time instead of wall-clock time: an estimate on a busy machine, with one thread\n"
    "  --json FILE      write the results to FILE (default: results.json)\n";

bool known(std::string_view name) {
  for (const auto& group : groups) {
    if (name == group.name) return true;
  }
  return false;
}

/// Throws std::invalid_argument for an invalid argument.
Settings parse(int count, char** arguments) {
  Settings settings;
  settings.json = "results.json";
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  for (int i = 1; i < count; ++i) {
    const std::string_view argument = arguments[i];
    const auto value = [&]() -> std::string {
      if (i + 1 == count) throw std::invalid_argument(std::string(argument) + " needs a value");
      return arguments[++i];
    };
    if (argument == "--quick") {
      settings.quick = true;
    } else if (argument == "--processor-time") {
      settings.processor_time = true;
    } else if (argument == "--only") {
      settings.only.push_back(value());
      if (!known(settings.only.back())) throw std::invalid_argument("unknown group: " + settings.only.back());
    } else if (argument == "--threads") {
      threads = std::atoi(value().c_str());
      if (threads < 1) throw std::invalid_argument("--threads needs a number of 1 or more");
    } else if (argument == "--json") {
      settings.json = value();
    } else {
      throw std::invalid_argument("unknown option: " + std::string(argument));
    }
  }
  if (threads > 1) settings.threads.push_back(threads);
  return settings;
}

void show_ceilings(Report& report) {
  report.begin_group("ceilings", "ceilings of this machine");
  const Buffer<float> buffer(Index{report.settings().quick ? 16 : 64} << 20);
  for (const int threads : report.settings().threads) {
    moe_mamba::cpu::Device device(moe_mamba::Threads{threads});
    const auto memory = buffer.bytes();
    const auto samples =
        interleave(report.settings(), {[&] { multiply_add(device); }, [&] { plain_read(device, memory); }});
    report.add({"multiply-adds, float",
                threads,
                samples[0],
                1e-9 * multiply_add_operations(device) / samples[0].median(),
                "GFLOP/s",
                {}});
    report.add({"memory read",
                threads,
                samples[1],
                1e-9 * static_cast<double>(memory.size()) / samples[1].median(),
                "GB/s",
                {}});
  }
}

int run(int count, char** arguments) {
  Settings settings;
  try {
    settings = parse(count, arguments);
  } catch (const std::invalid_argument& error) {
    std::fprintf(stderr, "%s\n%s", error.what(), usage);
    return 2;
  }
  Report report(settings);
  const auto write = [&] {
    if (!settings.json.empty()) report.write_json(settings.json);
  };
  write();  // fails early if the file is not writable
  show_ceilings(report);
  for (const auto& group : groups) {
    const auto& only = settings.only;
    if (!only.empty() && std::find(only.begin(), only.end(), group.name) == only.end()) continue;
    group.run(report);
    write();
  }
  return 0;
}

}  // namespace

}  // namespace benchmarks

int main(int count, char** arguments) {
  try {
    return benchmarks::run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "benchmarks: %s\n", error.what());
    return 1;
  }
}
