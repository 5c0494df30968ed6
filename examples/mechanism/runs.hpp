#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "options.hpp"
#include "recipe.hpp"
#include "results.hpp"
#include "support/terminal.hpp"
#include "systems.hpp"
#include "training.hpp"

/// All runs, and the threads that do them side by side.
namespace mechanism {

/// A system on a task.
struct Run {
  Task task;
  const char* system;
  Recipe recipe;
  std::vector<Row> rows;  ///< with accuracies once it has ended
  Index work;
  std::function<void(std::vector<Row>&, RunProgress&)> train_and_test;

  RunProgress progress;
  std::exception_ptr problem;
  double seconds = 0;
  std::atomic<bool> started = false, ended = false;
  bool seen = false;  ///< by visit_ended()
};

/// Each run is of one thread, so that it makes no difference how many there are.
class Runs {
 public:
  /// Everything that the options ask for. What `known` holds all results of is not done again.
  Runs(const Options& options, std::span<const Row> known) {
    for (const Task task : options.tasks) {
      add<PlainMamba>(task, options, known);
      add<MoeMamba>(task, options, known);
      add<Transformer>(task, options, known);
    }
  }
  ~Runs() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

  void start(int threads) {
    begin_ = now();
    for (int i = 0; i < std::min(threads, static_cast<int>(runs_.size())); ++i) {
      threads_.emplace_back([this] { work(); });
    }
  }

  /// Visits each run that has ended since the last call. Rethrows what a run has thrown.
  template <class Visit>
  void visit_ended(const Visit& visit) {
    for (Run& run : runs_) {
      if (!run.ended || run.seen) continue;
      if (run.problem) std::rethrow_exception(run.problem);
      run.seen = true;
      visit(std::as_const(run));
    }
  }
  bool all_seen() const {
    return std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.seen; });
  }

  /// The rows of the runs that were seen to have ended, in the order of tasks and systems.
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    for (const Run& run : runs_) {
      if (run.seen) rows.insert(rows.end(), run.rows.begin(), run.rows.end());
    }
    return rows;
  }

  /// Whether a row is of one of the runs, ended or not.
  bool include(const Row& row) const {
    return std::any_of(runs_.begin(), runs_.end(), [&](const Run& run) {
      return std::any_of(run.rows.begin(), run.rows.end(), [&](const Row& own) { return own.is_of(row); });
    });
  }

  /// The share of the work that is done.
  double done() const {
    double done = 0, all = 0;
    for (const Run& run : runs_) {
      done += static_cast<double>(run.progress.work);
      all += static_cast<double>(run.work);
    }
    return all > 0 ? done / all : 1;
  }

  /// What is running, and the time left.
  std::string status() const {
    std::string text;
    for (const Run& run : runs_) {
      if (!run.started || run.ended) continue;
      const Index step = run.progress.step;
      text += (text.empty() ? "" : "; ") + std::string(run.system);
      text += step < run.recipe.steps
                  ? " step " + support::grouped(step) + format(" loss %.3f", run.progress.loss.load())
                  : " tests";
    }
    const double share = done();
    if (share > 0.02) text += "  " + support::clock_time((now() - begin_) * (1 - share) / share) + " left";
    return text;
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  template <class System>
  void add(Task task, const Options& options, std::span<const Row> known) {
    Run& run = runs_.emplace_back();
    run.task = task;
    run.system = System::name;
    run.recipe = recipe_of(task, options);
    run.rows = rows_of<System>(task, run.recipe, options.seed);
    const bool is_known = std::all_of(run.rows.begin(), run.rows.end(), [&](Row& row) {
      const auto found = std::find_if(known.begin(), known.end(), [&](const Row& one) { return one.is_of(row); });
      if (found != known.end()) row.accuracy = found->accuracy;
      return found != known.end();
    });
    run.ended = is_known;
    run.work = is_known ? 0 : work_of(run.recipe, run.rows);
    run.train_and_test = [this, task, recipe = run.recipe, seed = options.seed](auto& rows, RunProgress& progress) {
      train_and_test<System>(task, recipe, seed, rows, progress, stop_);
    };
  }

  /// A thread: one run after the other, of those that no thread has taken.
  void work() {
    for (std::size_t taken = next_++; taken < runs_.size() && !stop_; taken = next_++) {
      Run& run = runs_[taken];
      if (run.ended) continue;
      run.started = true;
      const double begin = now();
      try {
        run.train_and_test(run.rows, run.progress);
      } catch (...) {
        run.problem = std::current_exception();
      }
      run.seconds = now() - begin;
      run.ended = !stop_ || run.problem;
    }
  }

  std::deque<Run> runs_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<bool> stop_ = false;
  std::vector<std::thread> threads_;
  double begin_ = 0;
};

}  // namespace mechanism
