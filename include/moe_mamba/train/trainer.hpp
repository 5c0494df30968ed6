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

/// Trains a model: gradients, clipping, schedule and AdamW, on memory taken beforehand. The model must outlive the
/// trainer. It serves one call at a time: a second one of another thread throws std::logic_error.
///
/// step() is accumulate(), then update(). Between the two gradients() may be read and changed, as whoever clips in
/// another way or reduces them over ranks does.
///
/// Of bfloat16 parameters it trains floats, of which the parameters are the rounding (to nearest, ties away from zero); it
/// keeps the 16 bits that each lacks (core/split_float.hpp). Parameters may be written between two steps: training goes on
/// from them, for bfloat16 to half a unit in the last place, as the 16 bits stay; a new trainer begins from just them.
///
/// On a CUDA device the work of a batch is recorded as a graph when a shape comes for the second time in a row, packed ones
/// with the same lengths, and one launch from then on; a step waits for the device at its end only.
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

  /// On a device of its own: one thread of the Cpu, or the current CUDA device. Throws std::invalid_argument for an
  /// option out of range.
  explicit Trainer(ModelType& model, AdamW optimizer = {}, Rate rate = {}, TrainerOptions options = {})
      : model_(model), adamw_(optimizer), rate_(rate), options_(options), workspace_(checked({}).workspace) {
    begin();
  }

  /// On the caller's device, which must outlive the trainer, and in the caller's memory where some is given. Several
  /// trainers, decoders and workspaces may share a device, as long as their calls follow one another.
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

  /// One update from one batch: token ids, or a sequence model's numbers. Like the calls that follow it throws, with
  /// nothing changed, std::invalid_argument for a size that does not fit, a number that is not finite and a schedule's
  /// factor outside [0, 1], and std::out_of_range for a token outside the vocabulary. Where a layer's operation throws, the
  /// trainer forgets all batches since the last update, and carried states begin from nothing again.
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

  /// Adds a batch's gradient to what update() will average over all targets: the update is that of one batch of all of
  /// them. (Routers' losses are not sums over targets; theirs are averaged with the batches' numbers of targets as
  /// weights.) A batch without targets adds nothing but brings carried states up to date. Returns the batch's losses. A
  /// batch that continues the one before must be of as many sequences, where states are carried.
  Losses accumulate(const BatchType& batch) {
    const ExclusiveCall call = begin_call();
    queue_gradient(batch, call);
    return or_forget([&] {
      const Losses losses = workspace_->losses();
      sum_.add_losses(losses);
      return losses;
    });
  }

  /// What was accumulated since the last update: times gradient_scale(), the gradient of the mean loss over targets()
  /// targets. Laid out as the parameters; of no meaning where there are no targets. On a device, work that was queued in
  /// its stream is not waited for.
  SpanOf<Compute, Memory> gradients() { return sum_.values(); }
  SpanOf<const Compute, Memory> gradients() const { return sum_.values(); }
  double gradient_scale() const { return sum_.scale(); }
  Index targets() const { return sum_.targets(); }

  /// The sums of the layers' reports over the same batches, whose loads move selection biases; empty where the definition has
  /// none. In memory of the backend's, as gradients().
  SpanOf<double, Memory> reports() { return sum_.reports(); }

  /// Makes gradients() those of the sum over the targets, to which others' may be added, and counts theirs: how many
  /// targets and which losses they are of. This is how ranks reduce: make_gradient_sum(), their own reduction of
  /// gradients() and reports(), count_others() with the other ranks' targets and losses, update(). Throws OrderError in another
  /// order.
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

  /// One update from the mean gradient of the batches accumulated since the last; none where they are without targets,
  /// and the report says so. Throws std::logic_error where there is no batch.
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

  /// Forgets the gradients accumulated since the last update.
  void discard() {
    const ExclusiveCall call = begin_call();
    forget();
  }

  /// Mean losses of a batch, without gradients. Running states are not touched.
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

  /// Shows visit(RouterReport) what each mixture-of-experts layer reports of the last batch.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    const ExclusiveCall call = begin_call();
    if (workspace_ != nullptr) workspace_->visit_routers(visit);
  }

  /// Updates done.
  Index steps() const { return steps_; }
  ModelType& model() { return model_; }
  Backend& device() { return *device_; }
  const AdamW& optimizer() const { return adamw_; }
  const Rate& schedule() const { return rate_; }
  const TrainerOptions& options() const { return options_; }

  using Progress = TrainerProgress<Compute>;
  /// Borrows where the trainer works in the host's memory, until the next call. Throws std::logic_error between
  /// accumulate() and update(): accumulated gradients would be lost.
  Progress progress() const { return progress(begin_call()); }
  /// During a call of the caller's on `device().in_use()`, for what must keep others away for longer.
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

  /// Goes on from `progress`; putting back the parameters is the caller's. Throws std::invalid_argument, with
  /// nothing changed, where a size does not fit.
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

  /// Throws what is wrong with the constructors' arguments, before anything has changed.
  const MemoryType& checked(const MemoryType& memory) const {
    adamw_.template check<Compute>();
    rate_.check();
    options_.check();
    memory.check(*device_, options_, model_.parameters());
    return memory;
  }

  /// The end of construction.
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

  /// Returns work(), which changes gradients and states: where it throws, they are in the middle of a batch.
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

  /// Takes the memory for batches up to this shape where there is not enough yet.
  void reserve(Shape shape) {
    if (workspace_ != nullptr && workspace_->fits(shape)) return;
    const Shape old = workspace_ != nullptr ? workspace_->largest() : Shape{};
    const Shape largest = WorkspaceType::largest_for(*device_, shape, old, Purpose::training);
    auto larger = std::make_unique<WorkspaceType>(*device_, largest, Purpose::training);
    // What was recorded works in the old memory, and a later workspace may come to lie where the old one did.
    sum_.forget_recordings();
    own_workspace_ = std::move(larger);
    workspace_ = own_workspace_.get();
  }

  /// Throws, before anything has changed, what is wrong with a batch.
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
    // Nothing of the library allocates or throws from here on, so that a batch that there is no memory for changes nothing.
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

  /// That of the next update. Throws std::invalid_argument for a factor that no schedule may give.
  double learning_rate() const { return adamw_.learning_rate * detail::checked_factor(rate_, steps_); }

  /// Clips the gradient where it is too large and changes the parameters; where that is not finite, leaves all as it is.
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
  WorkspaceType* workspace_ = nullptr;  // that, or the caller's; null until the first batch
  CarriedStates<Definition, S, Backend> states_;
  GradientSum<Definition, S, Backend> sum_;
  OptimizerType optimizer_;
  Index steps_ = 0;
  Index batches_ = 0;  // since the last update
};

}  // namespace moe_mamba::inline v0_2
