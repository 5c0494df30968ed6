#pragma once

#include <array>

#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/losses.hpp"
#include "moe_mamba/model/session.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/train/selection_biases.hpp"
#include "moe_mamba/train/work_recording.hpp"

namespace moe_mamba::inline v0_2 {

/// The gradient of the sum of the losses over the targets of any number of batches, and the number of targets.
///
/// values() times scale() is the gradient of the mean over those targets. For a single batch, values() is that gradient
/// itself and scale() is 1, which avoids needless multiplications.
template <class Definition, StorageScalar S, class Backend>
class GradientSum {
 public:
  using C = compute_t<S>;
  using Memory = typename Backend::Memory;
  using SessionType = Session<Definition, S, Backend>;
  using Batch = typename SessionType::Batch;

  /// In the caller's memory of Definition::parameters numbers if that is not empty.
  explicit GradientSum(SpanOf<C, Memory> memory = {})
      : values_("gradients.size()", memory, static_cast<std::size_t>(Definition::parameters)) {
    if (selection_bias_places<Definition>().empty()) return;
    reports_ = Array<double, Memory>(static_cast<std::size_t>(Definition::Body::report_size));
  }

  /// Reserves the memory that add() needs for a batch of this shape.
  void reserve(const Shape& shape) {
    for (auto& recorded : recorded_) recorded.reserve(shape);
  }

  /// Adds the gradient of a batch of 1 or more targets, after a reserve() for its shape.
  void add(SessionType& session, const Batch& batch, Index targets, const S* parameters) {
    const bool begins = unit_ == 0;
    is_sum_ = false;
    if (!begins) rescale(session.device(), targets);
    unit_ = targets;
    targets_ += targets;
    const Into into = begins ? Into::assign : Into::add;
    session.workspace().invalidate();
    const auto queue = [&] {
      session.forward(batch, values_.data(), into);
      session.backward(batch, values_.data(), into);
      if (reports_.empty()) return;
      passes().sum_reports(session.device(), session.workspace().report().data(), reports_.data(), into);
    };
    const RecordedWork work{batch.shape, &session.workspace(), batch.states.data, parameters};
    recorded_[begins ? 0 : 1].run(session.device(), work, queue);
  }

  /// Makes values() the gradient of the sum itself (zeros without targets), which can be added to those of others, such
  /// as other ranks.
  void make_sum(Backend& device) {
    if (unit_ == 0) {
      if (!is_sum_) {
        passes().clear(device, values_.data(), Definition::parameters);
        if (!reports_.empty()) passes().sum_reports(device, nullptr, reports_.data(), Into::assign);
      }
    } else {
      rescale(device, 1);
      unit_ = 1;
    }
    is_sum_ = true;
  }
  /// Whether values() is that sum: since make_sum(), until another batch is added.
  bool is_sum() const { return is_sum_; }
  /// Counts targets whose gradient the caller has added to values() after make_sum(), and their losses.
  void count_others(const Losses& losses) {
    if (losses.targets > 0 && unit_ == 0) unit_ = 1;
    targets_ += losses.targets;
    losses_ += losses;
  }

  void add_losses(const Losses& losses) { losses_ += losses; }

  /// (Definition::parameters), laid out as the parameters; meaningless if targets() is 0.
  SpanOf<C, Memory> values() const { return values_.span(); }
  /// The sums of the layers' reports, which Optimizer::update_selection_biases() reads; after make_sum() those of
  /// others, such as other ranks, can be added. Empty if the definition has no selection bias.
  SpanOf<double, Memory> reports() { return reports_.span(); }
  double scale() const { return static_cast<double>(unit_) / static_cast<double>(targets_); }
  Index targets() const { return targets_; }
  const Losses& losses() const { return losses_; }

  /// Begins a new sum.
  void reset() {
    unit_ = targets_ = 0;
    is_sum_ = false;
    losses_ = {};
  }

  /// Discards recordings, as they refer to memory that is about to be freed.
  void forget_recordings() {
    for (auto& recorded : recorded_) recorded.forget();
  }

 private:
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }

  void rescale(Backend& device, Index unit) {
    if (unit_ == unit) return;
    const double factor = static_cast<double>(unit_) / static_cast<double>(unit);
    passes().scale(device, static_cast<C>(factor), values_.data(), Definition::parameters);
  }

  Zeros<C, Memory> values_;
  Array<double, Memory> reports_;
  std::array<WorkRecording<Backend>, 2> recorded_;  // of the gradient of a first batch, and of one added to it
  Index targets_ = 0;
  Index unit_ = 0;  // values_ times this is the gradient of the sum over targets_; 0: no batch yet
  bool is_sum_ = false;
  Losses losses_;
};

}  // namespace moe_mamba::inline v0_2
