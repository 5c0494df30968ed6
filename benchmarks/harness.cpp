#include "harness.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "ceilings.hpp"
#include "moe_mamba/io/classic_locale.hpp"
#include "moe_mamba/version.hpp"

namespace benchmarks {

namespace {

/// Seconds since an arbitrary epoch.
double now(bool processor_time) {
  if (processor_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string library_version() {
  return std::to_string(MOE_MAMBA_VERSION_MAJOR) + '.' + std::to_string(MOE_MAMBA_VERSION_MINOR) + '.' +
         std::to_string(MOE_MAMBA_VERSION_PATCH);
}

/// "12.3 ms", with three significant digits.
std::string readable_time(double seconds) {
  const struct {
    double size;
    const char* name;
  } units[] = {{1, "s "}, {1e-3, "ms"}, {1e-6, "us"}, {1e-9, "ns"}};
  const auto* unit = std::begin(units);
  while (unit + 1 != std::end(units) && seconds < unit->size) ++unit;
  const double value = seconds / unit->size;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f %s", value < 10 ? 2 : value < 100 ? 1 : 0, value, unit->name);
  return text;
}

std::string readable(const Comparison& comparison) {
  char text[160];
  const int size =
      comparison.ceiling
          ? std::snprintf(text, sizeof text, "%3.0f %% of %s", 100 * comparison.ratio, comparison.with.c_str())
          : std::snprintf(text, sizeof text, "%.2f x %s", comparison.ratio, comparison.with.c_str());
  if (comparison.aim > 0 && size > 0 && size < static_cast<int>(sizeof text)) {
    const double aim = comparison.ceiling ? 100 * comparison.aim : comparison.aim;
    std::snprintf(text + size, sizeof text - static_cast<std::size_t>(size), " (goal: %g)", aim);
  }
  return text;
}

/// JSON values as text. Names have no control characters.
std::string json(std::string_view text) {
  std::string quoted = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') quoted += '\\';
    quoted += character;
  }
  return quoted + '"';
}
std::string json(double number) { return std::isfinite(number) ? moe_mamba::detail::number_text(number) : "null"; }
std::string json_flag(bool flag) { return flag ? "true" : "false"; }

/// An array with an element per line.
std::string json_array(const std::vector<std::string>& elements) {
  std::string text;
  for (const std::string& element : elements) text += (text.empty() ? "\n" : ",\n") + element;
  return '[' + text + ']';
}

using JsonMembers = std::vector<std::pair<std::string_view, std::string>>;

std::string json_object(const JsonMembers& members) {
  std::string text;
  for (const auto& [name, value] : members) text += (text.empty() ? "" : ", ") + json(name) + ": " + value;
  return '{' + text + '}';
}

}  // namespace

double Samples::median() const { return benchmarks::median(seconds); }

double time_ratio(const Samples& a, const Samples& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(a.seconds.size(), b.seconds.size()); ++i) {
    ratios.push_back(a.seconds[i] / b.seconds[i]);
  }
  return median(ratios);
}

std::vector<Samples> interleave(const Settings& settings, const std::vector<std::function<void()>>& contestants) {
  const double sample = settings.quick ? 2e-3 : 5e-3;
  const double budget = settings.quick ? 0.2 : 1.5;
  const int fewest = settings.quick ? 3 : 5, most = settings.quick ? 9 : 31;

  // The first call warms up; the following ones determine the number of calls per sample.
  std::vector<int> calls;
  double round = 0;
  for (const auto& contestant : contestants) {
    contestant();
    int count = 0;
    const double begin = now(settings.processor_time);
    double elapsed = 0;
    do {
      contestant();
      ++count;
      elapsed = now(settings.processor_time) - begin;
    } while (elapsed < sample);
    calls.push_back(count);
    round += elapsed;
  }
  const int repeats = std::clamp(static_cast<int>(budget / round), fewest, most);

  std::vector<Samples> all(contestants.size());
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (std::size_t i = 0; i < contestants.size(); ++i) {
      const double begin = now(settings.processor_time);
      for (int call = 0; call < calls[i]; ++call) contestants[i]();
      all[i].seconds.push_back((now(settings.processor_time) - begin) / calls[i]);
    }
  }
  return all;
}

void Report::begin_group(const std::string& name, const std::string& title) {
  groups_.push_back({.name = name, .rows = {}, .profiles = {}});
  std::printf("\n%s: %s\n", name.c_str(), title.c_str());
  std::printf("  %-38s %-3s %10s %10s %17s %6s\n", "", "thr", "median", "best", "rate", "x 1thr");
}

double Report::speed_up(const Group& group, const Row& row) {
  if (row.threads == 1) return 0;
  for (const Row& other : group.rows) {
    if (other.name == row.name && other.threads == 1) return other.samples.median() / row.samples.median();
  }
  return 0;
}

void Report::add(Row row) {
  Group& group = groups_.back();
  const double times = speed_up(group, row);
  char scaling[16] = "";
  if (times > 0) std::snprintf(scaling, sizeof scaling, "%.2f", times);
  std::printf("  %-38s %-3d %10s %10s %9.4g %-7s %6s", row.name.c_str(), row.threads,
              readable_time(row.samples.median()).c_str(), readable_time(row.samples.lowest()).c_str(), row.rate,
              row.unit.c_str(), scaling);
  if (row.aim > 0) std::printf("  (goal: %g)", row.aim);
  for (const Comparison& comparison : row.comparisons) std::printf("  %s", readable(comparison).c_str());
  std::printf("\n");
  std::fflush(stdout);
  group.rows.push_back(std::move(row));
}

void Report::add_shares(const std::string& name, int threads, std::vector<Share> shares) {
  std::stable_sort(shares.begin(), shares.end(), [](const Share& a, const Share& b) { return a.share > b.share; });
  std::printf("    %-36s %-3d", name.c_str(), threads);
  for (const Share& share : shares) {
    if (share.share >= 0.005) std::printf(" %s %.0f %%", share.part.c_str(), 100 * share.share);
  }
  std::printf("\n");
  std::fflush(stdout);
  groups_.back().profiles.push_back({name, threads, std::move(shares)});
}

void Report::write_json(const std::string& path) const {
  std::vector<std::string> groups;
  for (const Group& group : groups_) {
    std::vector<std::string> rows, profiles;
    for (const Row& row : group.rows) {
      std::vector<std::string> comparisons;
      for (const Comparison& comparison : row.comparisons) {
        JsonMembers entry{{"with", json(comparison.with)},
                          {"ratio", json(comparison.ratio)},
                          {"ceiling", json_flag(comparison.ceiling)}};
        if (comparison.aim > 0) entry.emplace_back("aim", json(comparison.aim));
        comparisons.push_back(json_object(entry));
      }
      JsonMembers entry{{"name", json(row.name)},
                        {"threads", std::to_string(row.threads)},
                        {"seconds", json_object({{"median", json(row.samples.median())},
                                                 {"lowest", json(row.samples.lowest())},
                                                 {"highest", json(row.samples.highest())},
                                                 {"repeats", std::to_string(row.samples.seconds.size())}})},
                        {"rate", json(row.rate)},
                        {"unit", json(row.unit)},
                        {"comparisons", json_array(comparisons)}};
      if (row.aim > 0) entry.emplace_back("aim", json(row.aim));
      if (const double times = speed_up(group, row); times > 0) entry.emplace_back("speed_up", json(times));
      rows.push_back(json_object(entry));
    }
    for (const auto& profile : group.profiles) {
      JsonMembers shares;
      for (const Share& share : profile.shares) shares.emplace_back(share.part, json(share.share));
      profiles.push_back(json_object({{"name", json(profile.name)},
                                      {"threads", std::to_string(profile.threads)},
                                      {"shares", json_object(shares)}}));
    }
    groups.push_back(
        json_object({{"group", json(group.name)}, {"rows", json_array(rows)}, {"profiles", json_array(profiles)}}));
  }
  std::vector<std::string> threads;
  for (const int count : settings_.threads) threads.push_back(std::to_string(count));
#if defined(__clang__)
  const std::string_view compiler = "clang " __clang_version__;
#else
  const std::string_view compiler = "g++ " __VERSION__;
#endif
  std::ofstream file(path);
  file << json_object({{"library", json(library_version())},
                       {"compiler", json(compiler)},
                       {"vector_bytes", std::to_string(vector_bytes)},
                       {"quick", json_flag(settings_.quick)},
                       {"processor_time", json_flag(settings_.processor_time)},
                       {"threads", json_array(threads)},
                       {"groups", json_array(groups)}})
       << '\n';
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace benchmarks
