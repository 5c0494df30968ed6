#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "corpus.hpp"
#include "moe_mamba/model/cost.hpp"
#include "support/terminal.hpp"

/// What is trained, and how.
namespace paper {

/// The recipe, one for all systems of a size (section 4.1 and table 5 of the paper but for the sizes).
struct Recipe {
  Index length = 128;  ///< bytes in a window
  Index batch = 16;    ///< windows in a step
  Index steps = 20000;
  Index tuning_steps = 2400;  ///< of the shorter runs that choose a learning rate
  double warmup = 0.01, floor = 0.1, weight_decay = 0.1, clip_norm = 0.5;
  double middle_rate = 1.6e-2;  ///< of the first learning rates tried; the others are half and twice that
  /// The best rate of the shorter runs times this is that of the others. The best learning rate falls with the number of tokens
  /// to the power of about 0.32 (Bjorck et al. 2024, arXiv 2409.19913), by half over the factor of 8 between the two.
  double rate_factor = 0.5;
  Index seeds = 3;

  Index tokens() const { return length * batch; }
  /// The learning rates to begin with; `study.hpp` adds others beyond the best one where that is the first or the last.
  std::vector<double> rates() const { return {middle_rate / 2, middle_rate, 2 * middle_rate}; }

  std::string text() const {
    return support::format(
        "batches of %lld windows of %lld bytes, AdamW with weight decay %g, warm-up over %g %% of the steps, then "
        "along a "
        "cosine to "
        "%g of the learning rate, gradients clipped to a norm of %g",
        static_cast<long long>(batch), static_cast<long long>(length), weight_decay, 100 * warmup, floor, clip_norm);
  }
};

/// What a run is for.
enum class Purpose { tuning, result };

/// A run of a system. Its curve is determined by these numbers, the system's definition, the recipe and the text.
struct Run {
  Purpose purpose = Purpose::result;
  Index steps = 0;
  double rate = 0;  ///< learning rate
  std::uint64_t seed = 1;

  /// The name of its files: "mamba.seed-2", "mamba.rate-0.008".
  std::string name(const std::string& system) const {
    return purpose == Purpose::result ? system + ".seed-" + std::to_string(seed)
                                      : system + support::format(".rate-%g", rate);
  }
};

/// How far runs are. Called from the threads that train.
class Monitor {
 public:
  virtual ~Monitor() = default;
  /// Whether to save a checkpoint and return.
  virtual bool interrupted() const = 0;
  /// `done` from 0 to 1; the last held-out loss.
  virtual void show(const std::string& run, double done, double held_out) = 0;
};

/// A definition to be trained, by its name.
struct System {
  std::string key, name;
  std::string definition;
  moe_mamba::Cost cost{};
  /// Trains until the end of the run or an interruption; resumes from a checkpoint, and writes the curve at the end.
  std::function<void(const Run&, const Recipe&, const Corpus&, const std::filesystem::path& folder, Monitor&)> train;
};

}  // namespace paper
