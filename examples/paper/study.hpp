#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "curve.hpp"
#include "run.hpp"

/// What is to be compared, and what of it has been run.
namespace paper {

/// A system's part in a comparison.
struct Entry {
  System system;
  Index seeds = 1;
  std::string rate_of;  ///< the system whose learning rate it takes; empty: it has runs of its own to choose one
};

/// Systems of one size with one recipe. The first entry is plain Mamba, which the others are compared with.
struct Group {
  std::string title;  ///< "width 24, on two cores"
  Recipe recipe;
  std::vector<Entry> entries;
};

/// The results in a folder: the curves of all finished runs, by the runs' names.
class Results {
 public:
  explicit Results(std::filesystem::path folder) : folder_(std::move(folder)) {
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      const std::string name = file.path().filename().string();
      if (name.ends_with(".csv") && !name.ends_with(".experts.csv")) add(name.substr(0, name.size() - 4));
    }
  }

  const std::filesystem::path& folder() const { return folder_; }
  void add(const std::string& run) { curves_[run] = Curve::read(folder_ / (run + ".csv")); }

  /// A finished run's curve, or null.
  const Curve* find(const std::string& run) const {
    const auto found = curves_.find(run);
    return found == curves_.end() ? nullptr : &found->second;
  }

  /// The finished runs of an entry, by seed.
  std::vector<const Curve*> seeds(const Entry& entry) const {
    std::vector<const Curve*> curves;
    for (Index seed = 1; seed <= entry.seeds; ++seed) {
      const Run run{Purpose::result, 0, 0, static_cast<std::uint64_t>(seed)};
      if (const Curve* curve = find(run.name(entry.system.key))) curves.push_back(curve);
    }
    return curves;
  }

  /// The learning rates that an entry needs runs of to choose one: those of the recipe, and one further as long as the best is
  /// the smallest or the largest, up to three times.
  std::vector<double> rates(const Entry& entry, const Recipe& recipe) const {
    std::vector<double> rates = recipe.rates();
    for (int extension = 0; extension < 3; ++extension) {
      const auto best = best_of(entry, rates);
      if (!best) break;
      if (*best == rates.front()) {
        rates.insert(rates.begin(), *best / 2);
      } else if (*best == rates.back()) {
        rates.push_back(2 * *best);
      } else {
        break;
      }
    }
    return rates;
  }

  /// An entry's learning rate: that with the least loss on the tuning text, times the recipe's factor; none while there are
  /// runs to come.
  std::optional<double> rate(const Group& group, const Entry& entry) const {
    if (!entry.rate_of.empty()) {
      for (const Entry& other : group.entries) {
        if (other.system.key == entry.rate_of) return rate(group, other);
      }
      return std::nullopt;
    }
    const auto best = best_of(entry, rates(entry, group.recipe));
    return best ? std::optional(*best * group.recipe.rate_factor) : std::nullopt;
  }

  /// The tuning text's loss at a learning rate.
  std::optional<double> tuning_loss(const Entry& entry, double rate) const {
    const Curve* curve = find(Run{Purpose::tuning, 0, rate, 1}.name(entry.system.key));
    if (curve == nullptr) return std::nullopt;
    return curve->points.back().held_out;
  }

 private:
  /// None while one of the rates has no run.
  std::optional<double> best_of(const Entry& entry, const std::vector<double>& rates) const {
    std::optional<double> best, least;
    for (const double rate : rates) {
      const auto loss = tuning_loss(entry, rate);
      if (!loss) return std::nullopt;
      if (!least || *loss < *least) {
        least = loss;
        best = rate;
      }
    }
    return best;
  }

  std::filesystem::path folder_;
  std::map<std::string, Curve> curves_;
};

}  // namespace paper
