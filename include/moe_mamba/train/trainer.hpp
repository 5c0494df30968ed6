#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/array.hpp"
#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/ops/masked_target.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/train/batch.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer_options.hpp"
#include "moe_mamba/train/work_recording.hpp"

namespace moe_mamba {

/// Trains a model: gradients, clipping, schedule and AdamW, on memory taken beforehand. The model must outlive the
/// trainer. It serves one call at a time: a second one of another thread throws std::logic_error.
///
/// Of bfloat16 parameters it trains floats, of which the parameters are the rounding (to nearest, ties away from zero):
/// beside each it keeps the 16 bits that are missing (core/split_float.hpp). Parameters may be written between two steps,
/// and training goes on from what was written. Of bfloat16 ones the 16 bits stay as they were, so that a float may be off
/// from what was written by up to half a unit in the last place of bfloat16; a new trainer begins from just that.
///
/// On a CUDA device the work of a batch is recorded as a graph when a shape comes for the second time in a row, and one
/// launch from then on; a step waits for the device at its end only.
template <class Definition, StorageScalar S, class Backend, class Rate>
class Trainer {
  static_assert(Schedule<Rate>,
                "a Trainer takes a schedule behind the model and the optimizer, such as Constant or Cosine");

 public:
  using ModelType = Model<Definition, S, Backend>;
  using Compute = compute_t<S>;
  using Memory = typename Backend::Memory;
  using StatesType = States<Definition, S, Memory>;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using Input = typename ModelType::Input;
  using BatchType = std::conditional_t<ModelType::takes_tokens, TokenBatch, SeriesBatch<Compute>>;
  static constexpr bool keeps_remainder = AdamWUpdate<Compute, S>::keeps_remainder;

  /// Throws std::invalid_argument for an option out of range.
  explicit Trainer(ModelType& model, AdamW optimizer = {}, Rate rate = {}, TrainerOptions options = {})
      : model_(model),
        optimizer_(optimizer),
        rate_(rate),
        options_(options),
        device_(open_device<Backend>(options.threads, options.cuda)) {
    optimizer.check();
    rate.check();
    require(std::isfinite(options.clip_norm) && options.clip_norm >= 0, "clip_norm", options.clip_norm,
            "finite, 0 or more");
    require(options.largest.batch >= 0, "largest.batch", options.largest.batch, "0 or more");
    require(options.largest.length >= 0, "largest.length", options.largest.length, "0 or more");
    gradients_ = Array<Compute, Memory>(count);
    first_moment_ = Array<Compute, Memory>(count);
    second_moment_ = Array<Compute, Memory>(count);
    if constexpr (keeps_remainder) remainder_ = Array<std::int16_t, Memory>(count);
    find_decay_toggles();
    if (options.largest != Shape{}) {
      reserve(options.largest);
      if (options.carry_states) states_ = std::make_unique<StatesType>(options.largest.batch);
    }
  }

  /// One update from one batch: token ids, or a sequence model's numbers. Like the calls that follow it throws, with
  /// nothing changed, std::invalid_argument for a size that does not fit and a number that is not finite, and
  /// std::out_of_range for a token outside the vocabulary.
  StepReport step(const BatchType& batch) {
    const ExclusiveCall call(device_.in_use(), "trainer");
    queue_gradient(batch.inputs, batch.targets, batch.shape, batch.continues);
    queue_update();
    losses_ += workspace_->losses();
    return finish();
  }

  /// Adds a batch's gradient to what update() will average over all targets: the update is that of one batch of all of
  /// them. (Routers' losses are not sums over targets; theirs are averaged with the batches' numbers of targets as
  /// weights.) A batch without targets adds nothing but brings carried states up to date. Returns the batch's losses. A
  /// batch that continues the one before must be of as many sequences, where states are carried.
  Losses accumulate(const BatchType& batch) {
    const ExclusiveCall call(device_.in_use(), "trainer");
    queue_gradient(batch.inputs, batch.targets, batch.shape, batch.continues);
    const Losses losses = workspace_->losses();
    losses_ += losses;
    return losses;
  }

  /// One update from the mean gradient of the batches accumulated since the last; none where they are without targets,
  /// and the report says so. Throws std::logic_error where there is no batch.
  StepReport update() {
    const ExclusiveCall call(device_.in_use(), "trainer");
    if (batches_ == 0) throw std::logic_error("update() was called without a batch; allowed: after accumulate()");
    queue_update();
    return finish();
  }

  /// Forgets the gradients accumulated since the last update.
  void discard() {
    const ExclusiveCall call(device_.in_use(), "trainer");
    forget();
  }

  /// Mean losses of a batch, without gradients. Running states are not touched.
  Losses evaluate(const BatchType& batch) {
    const ExclusiveCall call(device_.in_use(), "trainer");
    check(batch.inputs, batch.targets, batch.shape);
    if (options_.largest == Shape{}) reserve(batch.shape);
    const Input* const from = workspace_->keep_inputs(batch.inputs, batch.shape);
    const Input* const goal = workspace_->keep_targets(batch.targets, batch.shape);
    workspace_->begin();
    passes().loss(*workspace_, batch.shape, model_.parameters().data(), from, goal, {});
    return workspace_->losses();
  }

  /// Batches of another kind.
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) StepReport step(const Other&) {
    refuse_batch<Other>();
    return {};
  }
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) Losses accumulate(const Other&) {
    refuse_batch<Other>();
    return {};
  }
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) Losses evaluate(const Other&) {
    refuse_batch<Other>();
    return {};
  }

  /// Shows visit(RouterReport) what each mixture-of-experts layer reports of the last batch.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    const ExclusiveCall call(device_.in_use(), "trainer");
    if (workspace_) workspace_->visit_routers(visit);
  }

  /// Updates done.
  Index steps() const { return steps_; }
  ModelType& model() { return model_; }
  Backend& device() { return device_; }
  const AdamW& optimizer() const { return optimizer_; }
  const Rate& schedule() const { return rate_; }
  const TrainerOptions& options() const { return options_; }

  using Progress = TrainerProgress<Compute>;
  /// Borrows where the trainer works in the host's memory, until the next call. Throws std::logic_error between
  /// accumulate() and update(): accumulated gradients would be lost.
  Progress progress() const { return progress(ExclusiveCall(device_.in_use(), "trainer")); }
  /// During a call of the caller's on `device().in_use()`, for what must keep others away for longer.
  Progress progress(const ExclusiveCall&) const {
    if (batches_ != 0) {
      throw std::logic_error(
          "progress was asked for between accumulate() and update(); allowed: after update() or discard()");
    }
    using Numbers = HostNumbers<Compute>;
    return {steps_, Numbers::template of<Memory>(first_moment_), Numbers::template of<Memory>(second_moment_),
            HostNumbers<std::int16_t>::template of<Memory>(remainder_),
            carrying_ ? Numbers::template of<Memory>(std::as_const(*states_).values()) : Numbers()};
  }

  /// Goes on from `progress`; putting back the parameters is the caller's. Throws std::invalid_argument, with
  /// nothing changed, where a size does not fit.
  void restore(const Progress& progress) { restore(progress, ExclusiveCall(device_.in_use(), "trainer")); }
  void restore(const Progress& progress, const ExclusiveCall&) {
    require(progress.steps >= 0, "progress.steps", progress.steps, "0 or more");
    check_size("progress.first_moment.size()", progress.first_moment.size(), count);
    check_size("progress.second_moment.size()", progress.second_moment.size(), count);
    check_size("progress.remainder.size()", progress.remainder.size(), keeps_remainder ? count : 0);
    std::unique_ptr<StatesType> states;
    if (!progress.states.empty()) {
      const auto size = static_cast<std::size_t>(std::max<Index>(StatesType::state_size, 1));
      require(options_.carry_states && progress.states.size() % size == 0, "progress.states.size()",
              progress.states.size(), "a multiple of state_size, and 0 without carry_states");
      states = std::make_unique<StatesType>(static_cast<Index>(progress.states.size() / size));
      states->write(progress.states);
    }
    forget();
    steps_ = progress.steps;
    if constexpr (!Memory::on_host) device_.synchronize();
    first_moment_.write(progress.first_moment);
    second_moment_.write(progress.second_moment);
    if constexpr (keeps_remainder) remainder_.write(progress.remainder);
    carrying_ = states != nullptr;
    if (states) states_ = std::move(states);
  }

 private:
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }
  static constexpr Index total = Definition::parameters;
  static constexpr auto count = static_cast<std::size_t>(total);

  static void check_size(const char* name, std::size_t size, std::size_t wanted) {
    require(size == wanted, name, size, [&] { return std::to_string(wanted); });
  }

  void forget() {
    batches_ = targets_ = unit_ = 0;
    losses_ = {};
  }

  void find_decay_toggles() {
    std::vector<Index> toggles;
    Definition::visit_parameters([&](const Parameter& parameter) {
      const bool decaying = toggles.size() % 2 == 1;
      if ((parameter.kind == ParameterKind::matrix) != decaying) toggles.push_back(parameter.offset);
    });
    decay_toggles_ = Array<Index, Memory>(toggles.size());
    decay_toggles_.write(toggles);
  }

  /// Takes the memory for batches up to this shape where there is not enough yet.
  void reserve(Shape shape) {
    if (workspace_ && workspace_->fits(shape)) return;
    const Shape old = workspace_ ? workspace_->largest() : Shape{};
    Shape largest{std::max({Index{1}, shape.batch, old.batch}), std::max({Index{1}, shape.length, old.length})};
    if (shape.lengths != nullptr) {
      // As long as the mean, and a little more for what each sequence begins anew; twice that until it is enough.
      largest.length = std::max(shape.total / largest.batch + 64, old.length);
      const std::size_t wanted = WorkspaceType::bytes(device_, shape, Purpose::training);
      while (WorkspaceType::bytes(device_, largest, Purpose::training) < wanted) largest.length *= 2;
    }
    auto larger = std::make_unique<WorkspaceType>(device_, largest, Purpose::training);
    // What was recorded works in the old memory, and a later workspace may come to lie where the old one did.
    for (auto& recorded : recorded_) recorded.forget();
    workspace_ = std::move(larger);
  }

  /// Throws, before anything has changed, what is wrong with a batch.
  void check(std::span<const Input> inputs, std::span<const Input> targets, Shape shape) const {
    model_.require_parameters();
    if (options_.largest == Shape{}) {
      ModelType::check_batch(inputs, targets, shape);
    } else {
      ModelType::check_batch(*workspace_, inputs, targets, shape);
    }
    if constexpr (!ModelType::takes_tokens) {
      require_finite("inputs", inputs);
      require_finite("targets", targets);
    }
  }

  template <class Other>
  static void refuse_batch() {
    static_assert(
        std::same_as<Other, BatchType>,
        "a trainer takes a TokenBatch of a LanguageModel and a SeriesBatch<T> of a SequenceModel, where T is float, or "
        "double where parameters are: refuse_batch<what was given>");
  }

  static Index count_targets(std::span<const Input> targets) {
    auto counted = static_cast<Index>(targets.size());
    if constexpr (ModelType::takes_tokens) counted -= std::count(targets.begin(), targets.end(), masked_target);
    return counted;
  }

  /// Adds a batch's gradient to those since the last update.
  void queue_gradient(std::span<const Input> inputs, std::span<const Input> targets, Shape shape, bool continues) {
    check(inputs, targets, shape);
    const bool carried = carrying_ && continues;
    require(!carried || states_->count() == shape.batch, "shape.batch", shape.batch,
            [&] { return std::to_string(states_->count()) + ", as in the batch that this one continues"; });
    const bool anew = options_.carry_states && !carried;
    const bool resized = anew && (states_ == nullptr || states_->count() != shape.batch);
    auto other_states = resized ? std::make_unique<StatesType>(shape.batch) : nullptr;
    if (options_.largest == Shape{}) reserve(shape);
    // Nothing allocates from here on, so that a batch that there is no memory for changes nothing.
    if (resized) {
      states_ = std::move(other_states);
    } else if (anew) {
      passes().clear(device_, states_->values().data(), static_cast<Index>(states_->values().size()));
    }
    carrying_ = options_.carry_states;
    const Input* const from = workspace_->keep_inputs(inputs, shape);
    const Input* const goal = workspace_->keep_targets(targets, shape);
    const StateView<Compute> states = states_ ? states_->view() : StateView<Compute>{};
    ++batches_;
    const Index counted = count_targets(targets);
    workspace_->begin();
    if (counted == 0) {
      passes().loss(*workspace_, shape, model_.parameters().data(), from, goal, states);
      return;
    }
    const bool begins = unit_ == 0;  // a sum of gradients
    if (!begins && unit_ != counted) {
      const double factor = static_cast<double>(unit_) / static_cast<double>(counted);
      passes().scale(device_, static_cast<Compute>(factor), gradients_.data(), total);
    }
    unit_ = counted;
    targets_ += counted;
    const auto gradient = [&] {
      passes().gradient(*workspace_, shape, model_.parameters().data(), from, goal, gradients_.data(),
                        begins ? Into::assign : Into::add, states, {});
    };
    if (shape.lengths != nullptr) {
      gradient();  // whose kernels depend on the lengths, which are others each time
    } else {
      const RecordedWork work{shape, workspace_.get(), states.data, model_.parameters().data()};
      auto& recorded = recorded_[begins ? 0 : 1];
      recorded.run(device_, work, gradient);
    }
  }

  /// Clips the gradient where it is too large and changes the parameters; where that is not finite, leaves all as it is.
  void queue_update() {
    if (targets_ == 0) return;
    const double time = static_cast<double>(steps_ + 1);
    passes().update(device_,
                    AdamWUpdate<Compute, S>{.count = total,
                                            .parameters = model_.parameters().data(),
                                            .remainder = keeps_remainder ? remainder_.data() : nullptr,
                                            .gradient = gradients_.data(),
                                            .first_moment = first_moment_.data(),
                                            .second_moment = second_moment_.data(),
                                            .scale = mean_scale(),
                                            .rate = learning_rate(),
                                            .beta1 = optimizer_.beta1,
                                            .beta2 = optimizer_.beta2,
                                            .epsilon = optimizer_.epsilon,
                                            .decay = optimizer_.weight_decay,
                                            .decay_toggles = decay_toggles_.data(),
                                            .toggle_count = static_cast<Index>(decay_toggles_.size()),
                                            .correction1 = 1 - std::pow(optimizer_.beta1, time),
                                            .correction2 = 1 - std::pow(optimizer_.beta2, time),
                                            .squares = squares_.data(),
                                            .clip_norm = options_.clip_norm},
                    squares_.data());
  }

  /// What makes the mean gradient of gradients_.
  double mean_scale() const { return static_cast<double>(unit_) / static_cast<double>(targets_); }

  double learning_rate() const { return optimizer_.learning_rate * rate_(steps_); }

  /// Waits for the update, and tells what it did.
  StepReport finish() {
    if (targets_ == 0) {
      forget();
      return {.learning_rate = learning_rate()};
    }
    double squares = 0;
    if constexpr (Memory::on_host) {
      squares = *squares_.data();
    } else {
      device_.download(&squares, squares_.data(), sizeof squares);
    }
    StepReport report{.loss = losses_.prediction,
                      .auxiliary = losses_.auxiliary,
                      .gradient_norm = mean_scale() * std::sqrt(squares),
                      .learning_rate = learning_rate(),
                      .targets = losses_.targets};
    report.applied = std::isfinite(report.gradient_norm);
    if (report.applied) {
      ++steps_;
    } else {
      carrying_ = false;
    }
    forget();
    return report;
  }

  ModelType& model_;
  AdamW optimizer_;
  Rate rate_;
  TrainerOptions options_;
  Backend device_;
  std::unique_ptr<WorkspaceType> workspace_;
  std::unique_ptr<StatesType> states_;
  bool carrying_ = false;  // whether states_ are those behind a batch
  Array<Compute, Memory> gradients_, first_moment_, second_moment_;
  Array<std::int16_t, Memory> remainder_;
  Array<Index, Memory> decay_toggles_;              // where parameters begin to decay, and cease
  Array<double, Memory> squares_{std::size_t{1}};   // the sum of the squares of the accumulated gradients
  std::array<WorkRecording<Backend>, 2> recorded_;  // of the gradient of a first batch, and of one that is added to it
  Index steps_ = 0;
  Index batches_ = 0, targets_ = 0;  // since the last update
  Index unit_ = 0;  // gradients_ times this is the gradient of the sum over those targets; 0: gradients_ is of none
  Losses losses_;
};

template <class Definition, StorageScalar S, class Backend>
Trainer(Model<Definition, S, Backend>&) -> Trainer<Definition, S, Backend, Constant>;
template <class Definition, StorageScalar S, class Backend>
Trainer(Model<Definition, S, Backend>&, AdamW) -> Trainer<Definition, S, Backend, Constant>;
template <class Definition, StorageScalar S, class Backend, Schedule Rate>
Trainer(Model<Definition, S, Backend>&, AdamW, Rate) -> Trainer<Definition, S, Backend, Rate>;
template <class Definition, StorageScalar S, class Backend, Schedule Rate>
Trainer(Model<Definition, S, Backend>&, AdamW, Rate, TrainerOptions) -> Trainer<Definition, S, Backend, Rate>;

}  // namespace moe_mamba
