#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/runtime/memory.hpp"

/// Timing and reporting.
///
/// On shared machines clock frequency and memory bandwidth vary over time, so only simultaneous measurements are
/// compared: samples of a kernel and its ceiling alternate, and their ratio is the median of the ratios of neighbouring
/// samples.
namespace benchmarks {

using moe_mamba::Index;

struct Settings {
  bool quick = false;              ///< smaller shapes and fewer repeats: a smoke test
  bool processor_time = false;     ///< total CPU time of all threads instead of wall-clock time
  std::vector<std::string> only;   ///< names of the groups to run; empty: all
  std::string json;                ///< the file for results; empty: none
  std::vector<int> threads = {1};  ///< thread counts to measure with
};

/// Seconds per call, for each repeat.
struct Samples {
  std::vector<double> seconds;

  double median() const;
  double lowest() const { return *std::min_element(seconds.begin(), seconds.end()); }
  double highest() const { return *std::max_element(seconds.begin(), seconds.end()); }
};

/// Times all functions alternately until each has enough samples. A call that is shorter than a sample is repeated.
std::vector<Samples> interleave(const Settings& settings, const std::vector<std::function<void()>>& contestants);

/// The time of `a` relative to `b`: the median over pairs of neighbouring samples.
double time_ratio(const Samples& a, const Samples& b);

/// A comparison shown with a row's rate.
struct Comparison {
  std::string with;      ///< "FMA peak", "scalar loop", …
  double ratio = 0;      ///< fraction of a ceiling, or speed-up over something else
  bool ceiling = false;  ///< shown in per cent
  double aim = 0;        ///< goal for the ratio; 0: none
};

struct Row {
  std::string name;
  int threads = 1;
  Samples samples;
  double rate = 0;  ///< in `unit`
  std::string unit;
  std::vector<Comparison> comparisons;
  double aim = 0;  ///< goal for the rate; 0: none
};

/// A part of a profile and its share of the time.
struct Share {
  std::string part;
  double share = 0;
};

/// Prints rows immediately, and keeps them for the JSON file.
class Report {
 public:
  explicit Report(Settings settings) : settings_(std::move(settings)) {}

  const Settings& settings() const { return settings_; }
  void begin_group(const std::string& name, const std::string& title);
  void add(Row row);
  /// Adds a profile.
  void add_shares(const std::string& name, int threads, std::vector<Share> shares);
  /// Throws std::runtime_error if the file cannot be written.
  void write_json(const std::string& path) const;

 private:
  struct Group {
    std::string name;
    std::vector<Row> rows;
    struct Profile {
      std::string name;
      int threads;
      std::vector<Share> shares;
    };
    std::vector<Profile> profiles;
  };
  /// Speed-up over the row of the same name with one thread; 0 if there is none.
  static double speed_up(const Group& group, const Row& row);

  Settings settings_;
  std::vector<Group> groups_;
};

/// Numbers in memory allocated like a model's: aligned, in huge pages if available.
template <class T>
class Buffer {
 public:
  explicit Buffer(Index size) : memory_(static_cast<std::size_t>(size) * sizeof(T)), size_(size) {
    std::fill_n(data(), size, T{});
  }
  /// Uniform draws.
  Buffer(Index size, double low, double high, std::uint64_t seed = 1) : Buffer(size) {
    moe_mamba::Random random(moe_mamba::Seed{seed});
    std::generate_n(data(), size, [&] { return static_cast<T>(random.uniform(low, high)); });
  }

  T* data() const { return reinterpret_cast<T*>(memory_.data()); }
  Index size() const { return size_; }
  std::span<T> span() const { return {data(), static_cast<std::size_t>(size_)}; }
  std::span<const std::byte> bytes() const { return std::as_bytes(span()); }

 private:
  moe_mamba::HostMemory memory_;
  Index size_;
};

// The groups.
void gemm(Report& report);
void scan(Report& report);
void convolution(Report& report);
void attention(Report& report);
void moe(Report& report);
void mamba_experts(Report& report);
void mamba_130m(Report& report);
void moe_mamba_416m(Report& report);
void sequence_model(Report& report);

}  // namespace benchmarks
