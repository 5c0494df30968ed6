#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/static_check.hpp"
#include "moe_mamba/model/batch_checks.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/model/session.hpp"
#include "moe_mamba/runtime/backend.hpp"
#include "moe_mamba/train/batch.hpp"
#include "moe_mamba/train/carried_states.hpp"
#include "moe_mamba/train/gradient_sum.hpp"
#include "moe_mamba/train/optimizer.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer_deduction.hpp"
#include "moe_mamba/train/trainer_memory.hpp"
#include "moe_mamba/train/trainer_options.hpp"

namespace moe_mamba::inline v0_2 {

/// Trains a model: gradients, clipping, schedule and AdamW, in preallocated memory. The model must outlive the trainer.
/// It serves one call at a time: a concurrent second call throws std::logic_error.
///
/// step() is accumulate(), then update(). Between the two, gradients() may be read and changed, for example to clip
/// them differently or to reduce them over ranks.
///
/// For bfloat16 parameters it trains floats, of which the parameters are the rounding (to nearest, ties away from
/// zero); it keeps the remaining 16 bits of each (core/split_float.hpp). Parameters may be written between two steps:
/// training continues from them, for bfloat16 up to half a unit in the last place, as the 16 bits are kept; a new
/// trainer starts from exactly them.
///
/// On a CUDA device the work of a batch is captured as a graph when a shape (for packed batches, with the same lengths)
/// occurs for the second time in a row, and is a single launch from then on; a step waits for the device only at its
/// end.
template <class Definition, StorageScalar S, class Backend, class Rate>
class Trainer {
  static_assert(Schedule<Rate>, "a Trainer takes a schedule after the optimizer, such as Constant or Cosine");

 public:
  using ModelType = Model<Definition, S, Backend>;
  using Compute = compute_t<S>;
  using Memory = typename Backend::Memory;
  using WorkspaceType = Workspace<Definition, S, Backend>;
  using MemoryType = TrainerMemory<Definition, S, Backend>;
  using Input = typename ModelType::Input;
  using BatchType = std::conditional_t<ModelType::takes_tokens, TokenBatch, SeriesBatch<Compute>>;
  static constexpr bool keeps_remainder = AdamWUpdate<Compute, S>::keeps_remainder;

  /// On its own device: one thread of the Cpu, or the current CUDA device. Throws std::invalid_argument for an option
  /// out of range.
  explicit Trainer(ModelType& model, AdamW optimizer = {}, Rate rate = {}, TrainerOptions options = {})
      : model_(model), adamw_(optimizer), rate_(rate), options_(options), workspace_(checked({}).workspace) {
    begin();
  }

  /// On the caller's device, which must outlive the trainer, and in the caller's memory if it is given. Several
  /// trainers, decoders and workspaces may share a device if their calls do not overlap.
  Trainer(ModelType& model, Backend& device, AdamW optimizer = {}, Rate rate = {}, TrainerOptions options = {},
          MemoryType memory = {})
      : model_(model),
        adamw_(optimizer),
        rate_(rate),
        options_(options),
        device_(device),
        called_("device"),
        workspace_(checked(memory).workspace),
        states_(memory.states),
        sum_(memory.gradients),
        optimizer_(memory.first_moment, memory.second_moment, memory.remainder) {
    if (workspace_ != nullptr) options_.largest = workspace_->largest();
    begin();
  }

  /// A schedule without an optimizer before it does not compile, with a message that says so.
  template <class... Rest>
  Trainer(ModelType& model, Rate, Rest...) : Trainer(model) {
    detail::check<detail::OptimizerBefore<Rate>>();
  }
  template <class... Rest>
  Trainer(ModelType& model, Backend& device, Rate, Rest...) : Trainer(model, device) {
    detail::check<detail::OptimizerBefore<Rate>>();
  }

  /// One update from one batch: token ids, or a sequence model's numbers. Like the calls below it throws, with nothing
  /// changed, std::invalid_argument for a size that does not match, a non-finite number and a schedule's factor outside
  /// [0, 1], and std::out_of_range for a token outside the vocabulary. If a layer's operation throws, the trainer
  /// discards all batches since the last update, and carried states are reset to zero.
  StepReport step(const BatchType& batch) {
    const ExclusiveCall call = begin_call();
    const double rate = learning_rate();
    queue_gradient(batch, call);
    return or_forget([&] {
      queue_update(rate);
      sum_.add_losses(workspace_->losses());
      return finish(rate);
    });
  }

  /// Adds a batch's gradient to the sum that update() averages over all targets: the update equals that of one batch
  /// with all of them. (Routers' losses are not sums over targets; they are averaged with the batches' numbers of
  /// targets as weights.) A batch without targets adds nothing but updates carried states. Returns the batch's losses.
  /// If states are carried, a batch that continues the previous one must have as many sequences.
  Losses accumulate(const BatchType& batch) {
    const ExclusiveCall call = begin_call();
    queue_gradient(batch, call);
    return or_forget([&] {
      const Losses losses = workspace_->losses();
      sum_.add_losses(losses);
      return losses;
    });
  }

  /// The gradient accumulated since the last update: times gradient_scale(), that of the mean loss over targets()
  /// targets. Laid out as the parameters; meaningless without targets. Does not wait for work queued in a device's
  /// stream.
  SpanOf<Compute, Memory> gradients() { return sum_.values(); }
  SpanOf<const Compute, Memory> gradients() const { return sum_.values(); }
  double gradient_scale() const { return sum_.scale(); }
  Index targets() const { return sum_.targets(); }

  /// The sums of the layers' reports over the same batches, whose loads move selection biases; empty if the definition
  /// has none. In the backend's memory, as gradients().
  SpanOf<double, Memory> reports() { return sum_.reports(); }

  /// Makes gradients() those of the sum over the targets, to which others may be added; count_others() counts the
  /// targets and losses of these. Ranks reduce as follows: make_gradient_sum(), their own reduction of gradients() and
  /// reports(), count_others() with the other ranks' targets and losses, update(). Throws OrderError in another order.
  void make_gradient_sum() {
    const ExclusiveCall call = begin_call();
    sum_.make_sum(*device_);
  }
  void count_others(const Losses& losses) {
    const ExclusiveCall call = begin_call();
    require(losses.targets >= 0, "losses.targets", losses.targets, "0 or more");
    if (batches_ == 0 || !sum_.is_sum()) {
      detail::raise<OrderError>(
          "count_others() was called on no gradient's sum; allowed: after accumulate() and then make_gradient_sum()");
    }
    sum_.count_others(losses);
  }

  /// One update from the mean gradient of the batches accumulated since the last; does nothing if they have no targets,
  /// as the report shows. Throws std::logic_error if there is no batch.
  StepReport update() {
    const ExclusiveCall call = begin_call();
    if (batches_ == 0) detail::raise<OrderError>("update() was called without a batch; allowed: after accumulate()");
    const double rate = learning_rate();
    model_.require_parameters();
    return or_forget([&] {
      queue_update(rate);
      return finish(rate);
    });
  }

  /// Discards the gradients accumulated since the last update.
  void discard() {
    const ExclusiveCall call = begin_call();
    forget();
  }

  /// Mean losses of a batch, without gradients. Running states are unchanged.
  Losses evaluate(const BatchType& batch) {
    const ExclusiveCall call = begin_call();
    check(batch);
    if (options_.largest == Shape{}) reserve(batch.shape);
    SessionType session(*workspace_, model_.parameters().data(), call);
    session.loss(staged(session, batch, {}));
    return workspace_->losses();
  }

  /// Batches of another kind.
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) StepReport step(const Other&) {
    detail::check<detail::BatchOfTrainer<Other, BatchType>>();
    return {};
  }
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) Losses accumulate(const Other&) {
    detail::check<detail::BatchOfTrainer<Other, BatchType>>();
    return {};
  }
  template <class Other>
  requires(!std::convertible_to<const Other&, BatchType>) Losses evaluate(const Other&) {
    detail::check<detail::BatchOfTrainer<Other, BatchType>>();
    return {};
  }

  /// Calls visit(RouterReport) with the report of each router for the last batch.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    const ExclusiveCall call = begin_call();
    if (workspace_ != nullptr) workspace_->visit_routers(visit);
  }

  /// The number of updates done.
  Index steps() const { return steps_; }
  ModelType& model() { return model_; }
  Backend& device() { return *device_; }
  const AdamW& optimizer() const { return adamw_; }
  const Rate& schedule() const { return rate_; }
  const TrainerOptions& options() const { return options_; }

  using Progress = TrainerProgress<Compute>;
  /// Borrowed, until the next call, if the trainer works in host memory. Throws std::logic_error between accumulate()
  /// and update(): accumulated gradients would be lost.
  Progress progress() const { return progress(begin_call()); }
  /// The same within the caller's own call on `device().in_use()`, to exclude others for longer.
  Progress progress(const ExclusiveCall&) const {
    if (batches_ != 0) {
      detail::raise<OrderError>(
          "progress() was called between accumulate() and update(); allowed: after update() or discard()");
    }
    using Numbers = HostNumbers<Compute>;
    return {steps_, Numbers::template of<Memory>(optimizer_.first_moment()),
            Numbers::template of<Memory>(optimizer_.second_moment()),
            HostNumbers<std::int16_t>::template of<Memory>(optimizer_.remainder()),
            states_.are_carried() ? Numbers::template of<Memory>(states_.values()) : Numbers()};
  }

  /// Continues from `progress`; restoring the parameters is left to the caller. Throws std::invalid_argument, with
  /// nothing changed, if a size does not match.
  void restore(const Progress& progress) { restore(progress, begin_call()); }
  void restore(const Progress& progress, const ExclusiveCall&) {
    progress.check(count, keeps_remainder ? count : 0);
    states_.reserve(progress.sequences(states_.state_size, options_.carry_states));
    forget();
    steps_ = progress.steps;
    if constexpr (!Memory::on_host) device_->synchronize();
    optimizer_.write(progress.first_moment, progress.second_moment, progress.remainder);
    states_.write(progress.states);
  }

 private:
  using SessionType = Session<Definition, S, Backend>;
  using Checks = BatchChecks<Definition, S, Backend>;
  using OptimizerType = Optimizer<Definition, S, Backend>;
  static constexpr auto count = static_cast<std::size_t>(Definition::parameters);

  /// Checks the constructors' arguments; throws before anything has changed.
  const MemoryType& checked(const MemoryType& memory) const {
    adamw_.template check<Compute>();
    rate_.check();
    options_.check();
    memory.check(*device_, options_, model_.parameters());
    return memory;
  }

  /// Completes the construction.
  void begin() {
    if (options_.largest == Shape{}) return;
    if (workspace_ == nullptr) reserve(options_.largest);
    if (options_.carry_states) states_.reserve(options_.largest.batch);
  }

  ExclusiveCall begin_call() const { return ExclusiveCall(device_->in_use(), called_); }

  void forget() {
    batches_ = 0;
    sum_.reset();
  }

  /// Returns work(), which changes gradients and states; if it throws in the middle of a batch, discards them.
  template <class Work>
  auto or_forget(const Work& work) {
    struct Guard {
      Trainer* trainer;
      ~Guard() {
        if (trainer == nullptr) return;
        trainer->states_.set_carried(false);
        trainer->forget();
      }
    } guard{this};
    const auto result = work();
    guard.trainer = nullptr;
    return result;
  }

  /// Reserves memory for batches up to this shape.
  void reserve(Shape shape) {
    if (workspace_ != nullptr && workspace_->fits(shape)) return;
    const Shape old = workspace_ != nullptr ? workspace_->largest() : Shape{};
    const Shape largest = WorkspaceType::largest_for(*device_, shape, old, Purpose::training);
    auto larger = std::make_unique<WorkspaceType>(*device_, largest, Purpose::training);
    // Recordings refer to the old memory, and a later workspace may have the same address.
    sum_.forget_recordings();
    own_workspace_ = std::move(larger);
    workspace_ = own_workspace_.get();
  }

  /// Checks a batch; throws before anything has changed.
  void check(const BatchType& batch) const {
    model_.require_parameters();
    Checks::training(options_.largest == Shape{} ? nullptr : workspace_, std::span<const Input>(batch.inputs),
                     std::span<const Input>(batch.targets), batch.shape);
  }

  static typename SessionType::Batch staged(SessionType& session, const BatchType& batch, StateView<Compute> states) {
    return {batch.shape, session.stage_inputs(std::span<const Input>(batch.inputs), batch.shape),
            session.stage_targets(std::span<const Input>(batch.targets), batch.shape), states};
  }

  /// Adds a batch's gradient to those since the last update.
  void queue_gradient(const BatchType& batch, const ExclusiveCall& call) {
    check(batch);
    const Shape shape = batch.shape;
    const bool carried = states_.are_carried() && batch.continues;
    require(!carried || states_.count() == shape.batch, "shape.batch", shape.batch,
            [&] { return std::to_string(states_.count()) + ", as in the batch that this one continues"; });
    const bool anew = options_.carry_states && !carried;
    if (anew) states_.reserve(shape.batch);
    if (options_.largest == Shape{}) reserve(shape);
    sum_.reserve(shape);
    SessionType session(*workspace_, model_.parameters().data(), call);
    // The library neither allocates nor throws from here on, so running out of memory changes nothing.
    batches_ = or_forget([&] {
      if (anew) states_.begin(*device_, shape.batch);
      const auto work = staged(session, batch, options_.carry_states ? states_.view() : StateView<Compute>{});
      const Index counted = Checks::targets(batch.targets);
      if (counted == 0) {
        session.loss(work);
      } else {
        sum_.add(session, work, counted, model_.parameters().data());
      }
      return batches_ + 1;
    });
    states_.set_carried(options_.carry_states);
  }

  /// The learning rate of the next update. Throws std::invalid_argument for an invalid factor of the schedule.
  double learning_rate() const { return adamw_.learning_rate * detail::checked_factor(rate_, steps_); }

  /// Clips the gradient if it is too large and updates the parameters; changes nothing if the gradient is not finite.
  void queue_update(double rate) {
    if (sum_.targets() == 0) return;
    optimizer_.sum_squares(*device_, sum_.values().data());
    S* const parameters = model_.parameters().data();
    const typename OptimizerType::Step step{.scale = sum_.scale(),
                                            .learning_rate = rate,
                                            .number = steps_ + 1,
                                            .clip_norm = options_.clip_norm,
                                            .selection_bias_rate = options_.selection_bias_rate};
    optimizer_.update(*device_, parameters, sum_.values().data(), adamw_, step);
    optimizer_.update_selection_biases(*device_, parameters, sum_.reports(), step);
  }

  /// Waits for the update and reports it.
  StepReport finish(double rate) {
    if (sum_.targets() == 0) {
      forget();
      return {.learning_rate = rate};
    }
    const Losses losses = sum_.losses();
    StepReport report{.loss = losses.prediction,
                      .auxiliary = losses.auxiliary,
                      .gradient_norm = sum_.scale() * std::sqrt(optimizer_.squares(*device_)),
                      .learning_rate = rate,
                      .targets = losses.targets};
    report.applied = std::isfinite(report.gradient_norm);
    if (report.applied) {
      ++steps_;
    } else {
      states_.set_carried(false);
    }
    forget();
    return report;
  }

  ModelType& model_;
  AdamW adamw_;
  Rate rate_;
  TrainerOptions options_;
  DeviceHandle<Backend> device_;
  const char* called_ = "trainer";  // what serves one call at a time
  std::unique_ptr<WorkspaceType> own_workspace_;
  WorkspaceType* workspace_ = nullptr;  // own_workspace_ or the caller's; null until the first batch
  CarriedStates<Definition, S, Backend> states_;
  GradientSum<Definition, S, Backend> sum_;
  OptimizerType optimizer_;
  Index steps_ = 0;
  Index batches_ = 0;  // since the last update
};

}  // namespace moe_mamba::inline v0_2
