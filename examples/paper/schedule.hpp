#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "study.hpp"
#include "support/terminal.hpp"
#include "training.hpp"

/// Trains what a study lacks, several runs side by side.
namespace paper {

class Schedule : public Monitor {
 public:
  /// Runs stop, saved, as soon as `stop()` is true.
  Schedule(const std::vector<Group>& groups, const Corpus& corpus, Results& results, std::function<bool()> stop)
      : groups_(groups), corpus_(corpus), results_(results), stop_(std::move(stop)), begun_(seconds_now()) {}

  /// Trains until nothing is left or the runs are stopped. Throws what a run throws, after all others have been saved.
  void train(int workers) {
    std::vector<std::thread> threads;
    for (int i = 0; i < workers; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    progress_.close();
    if (failure_) std::rethrow_exception(failure_);
  }

  bool interrupted() const override { return failed_ || stop_(); }

  void show(const std::string& run, double done, double held_out) override {
    const std::lock_guard lock(mutex_);
    State& state = running_.at(run);
    if (state.begun_at < 0) state.begun_at = done;
    state.done = done;
    state.held_out = held_out;
    if (seconds_now() - shown_ < 0.2) return;
    shown_ = seconds_now();
    progress_.show(share_done(), status());
  }

 private:
  struct State {
    double work = 0, done = 0, begun_at = -1, held_out = 0;
  };
  struct Job {
    const Group* group;
    const Entry* entry;
    Run run;
    std::string name() const { return run.name(entry->system.key); }
    /// In multiply-adds of the training; held-out text costs a third of that.
    double work() const {
      const Recipe& recipe = group->recipe;
      const double evaluated = run.purpose == Purpose::tuning ? 10.0 * (1 << 18) : 100.0 * (1 << 20);
      return (static_cast<double>(run.steps * recipe.tokens()) + evaluated / 3) *
             entry->system.cost.training_flops_per_token;
    }
  };

  void work() {
    while (const auto job = begin_next()) {
      try {
        job->entry->system.train(job->run, job->group->recipe, corpus_, results_.folder(), *this);
        end(*job);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        failed_ = true;
        running_.erase(job->name());
        changed_.notify_all();
        return;
      }
    }
  }

  /// The next run, once there is one; none when all have been run or the runs are stopped.
  std::optional<Job> begin_next() {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (interrupted()) return std::nullopt;
      for (const Job& job : jobs()) {
        if (running_.contains(job.name())) continue;
        running_[job.name()].work = job.work();
        return job;
      }
      if (running_.empty()) return std::nullopt;
      changed_.wait(lock);  // a run's end may decide on others
    }
  }

  void end(const Job& job) {
    const std::lock_guard lock(mutex_);
    const State state = running_.at(job.name());
    running_.erase(job.name());
    changed_.notify_all();
    if (!std::filesystem::exists(results_.folder() / (job.name() + ".csv"))) return;  // stopped
    results_.add(job.name());
    work_here_ += state.work * (1 - std::max(state.begun_at, 0.0));
    const Curve& curve = *results_.find(job.name());
    progress_.close();
    std::cout << job.name() << ": "
              << support::format("%.4f nats per byte of %s text", curve.points.back().held_out,
                                 job.run.purpose == Purpose::tuning ? "tuning" : "held-out")
              << " after " << support::grouped(job.run.steps) << " steps, "
              << support::clock_time(curve.points.back().seconds) << " of training\n"
              << std::flush;
  }

  /// Runs that can be begun now or are running, the most important first: the choice of learning rates, then results, first
  /// of systems with several seeds, one seed after the other. Groups follow one another.
  std::vector<Job> jobs() const {
    std::vector<Job> jobs;
    for (const Group& group : groups_) {
      for (const Entry& entry : group.entries) {
        if (!entry.rate_of.empty()) continue;
        for (const double rate : results_.rates(entry, group.recipe)) {
          if (!results_.tuning_loss(entry, rate)) {
            jobs.push_back({&group, &entry, {Purpose::tuning, group.recipe.tuning_steps, rate, 1}});
          }
        }
      }
      for (const bool has_several_seeds : {true, false}) {
        for (Index seed = 1; seed <= group.recipe.seeds; ++seed) {
          for (const Entry& entry : group.entries) {
            const auto rate = results_.rate(group, entry);
            if (seed > entry.seeds || (entry.seeds > 1) != has_several_seeds || !rate) continue;
            const Run run{Purpose::result, group.recipe.steps, *rate, static_cast<std::uint64_t>(seed)};
            if (results_.find(run.name(entry.system.key)) == nullptr) jobs.push_back({&group, &entry, run});
          }
        }
      }
      if (!jobs.empty()) break;
    }
    return jobs;
  }

  /// What all runs cost that are not finished, those not yet decided on included.
  double work_left() const {
    double left = 0;
    for (const Group& group : groups_) {
      for (const Entry& entry : group.entries) {
        const Job tuning{&group, &entry, {Purpose::tuning, group.recipe.tuning_steps, 0, 1}};
        const Job result{&group, &entry, {Purpose::result, group.recipe.steps, 0, 1}};
        if (entry.rate_of.empty()) {
          for (const double rate : results_.rates(entry, group.recipe)) {
            if (!results_.tuning_loss(entry, rate)) left += tuning.work();
          }
        }
        left += static_cast<double>(entry.seeds - static_cast<Index>(results_.seeds(entry).size())) * result.work();
      }
    }
    for (const auto& [name, state] : running_) left -= state.done * state.work;
    return left;
  }
  double work_done_here() const {
    double done = work_here_;
    for (const auto& [name, state] : running_) done += state.work * (state.done - std::max(state.begun_at, 0.0));
    return done;
  }
  double work_of_all() const {
    double all = 0;
    for (const Group& group : groups_) {
      for (const Entry& entry : group.entries) {
        const Job tuning{&group, &entry, {Purpose::tuning, group.recipe.tuning_steps, 0, 1}};
        const Job result{&group, &entry, {Purpose::result, group.recipe.steps, 0, 1}};
        const double rates =
            entry.rate_of.empty() ? static_cast<double>(results_.rates(entry, group.recipe).size()) : 0;
        all += rates * tuning.work() + static_cast<double>(entry.seeds) * result.work();
      }
    }
    return all;
  }
  double share_done() const { return 1 - work_left() / work_of_all(); }

  std::string status() const {
    std::string text;
    for (const auto& [name, state] : running_) {
      text += support::format("%s %.0f%% %.3f  ", name.c_str(), 100 * state.done, state.held_out);
    }
    const double done = work_done_here(), elapsed = seconds_now() - begun_;
    if (elapsed > 5 && done > 0) text += support::clock_time(elapsed * work_left() / done) + " left";
    return text;
  }

  const std::vector<Group>& groups_;
  const Corpus& corpus_;
  Results& results_;
  std::function<bool()> stop_;
  double begun_, shown_ = 0, work_here_ = 0;

  std::mutex mutex_;  // of what follows and of results_
  std::condition_variable changed_;
  std::map<std::string, State> running_;
  std::exception_ptr failure_;
  std::atomic<bool> failed_ = false;
  support::Progress progress_;
};

}  // namespace paper
