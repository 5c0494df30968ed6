#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/train/selection_biases.hpp"
#include "moe_mamba/train/trainer_options.hpp"

namespace moe_mamba::inline v0_2 {

/// Part of an array: the elements begin … end - 1.
struct IndexRange {
  Index begin = 0, end = 0;
};

/// AdamW's state for each parameter, and its updates of all parameters or of a range of them. Selection biases are not
/// subject to AdamW: update() leaves them unchanged, update_selection_biases() moves them.
template <class Definition, StorageScalar S, class Backend>
class Optimizer {
 public:
  using C = compute_t<S>;
  using Memory = typename Backend::Memory;
  static constexpr bool keeps_remainder = AdamWUpdate<C, S>::keeps_remainder;
  static constexpr IndexRange all{0, Definition::parameters};

  /// In the caller's memory, Definition::parameters numbers each, if that is not empty. (Only bfloat16 parameters have
  /// a remainder.)
  explicit Optimizer(SpanOf<C, Memory> first_moment = {}, SpanOf<C, Memory> second_moment = {},
                     SpanOf<std::int16_t, Memory> remainder = {})
      : first_moment_("first_moment.size()", first_moment, count),
        second_moment_("second_moment.size()", second_moment, count),
        remainder_("remainder.size()", remainder, keeps_remainder ? count : 0),
        biases_(selection_bias_places<Definition>()),
        bias_places_(biases_.size()) {
    bias_places_.write(biases_);
  }

  /// One update.
  struct Step {
    double scale = 1;                ///< the mean gradient is the gradients times this
    double learning_rate = 0;        ///< of this step
    Index number = 1;                ///< counted from 1
    double clip_norm = 0;            ///< mean gradients with a larger norm are scaled down to it; 0: never
    double selection_bias_rate = 0;  ///< by which selection biases are moved
  };

  /// Sums the squares of gradients for the global norm, which update() needs.
  void sum_squares(Backend& device, const C* gradients) {
    passes().sum_of_squares(device, gradients, Definition::parameters, squares_.data());
  }
  /// That sum, in the backend's memory, to which ranks may add theirs; squares() waits for it.
  SpanOf<double, Memory> squares_sum() { return squares_.span(); }
  double squares(Backend& device) const {
    double squares = 0;
    if constexpr (Memory::on_host) {
      squares = *squares_.data();
    } else {
      device.download(&squares, squares_.data(), sizeof squares);
    }
    return squares;
  }

  /// Updates a range of the parameters from the gradients, given the whole arrays, after sum_squares(). Changes nothing
  /// if the norm is not finite.
  void update(Backend& device, S* parameters, const C* gradients, const AdamW& adamw, const Step& step,
              IndexRange range = all) {
    for (const SelectionBiasPlace& place : biases_) {
      update_piece(device, parameters, gradients, adamw, step, {range.begin, std::min(place.bias, range.end)});
      range.begin = std::max(range.begin, place.bias + place.experts);
    }
    update_piece(device, parameters, gradients, adamw, step, range);
  }

  /// Moves the selection biases in a range of the parameters, given the whole array, by the sign of the mean load minus
  /// that of their expert; `reports` is GradientSum::reports(). To be called after sum_squares(), before or after
  /// update(); like update(), changes nothing if the norm is not finite.
  void update_selection_biases(Backend& device, S* parameters, SpanOf<const double, Memory> reports, const Step& step,
                               IndexRange range = all) {
    if (biases_.empty() || step.selection_bias_rate == 0) return;
    passes().update_selection_biases(device, {.places = bias_places_.data(),
                                              .count = static_cast<Index>(biases_.size()),
                                              .parameters = parameters,
                                              .remainder = keeps_remainder ? remainder_.data() : nullptr,
                                              .report = reports.data(),
                                              .rate = step.selection_bias_rate,
                                              .squares = squares_.data(),
                                              .scale = step.scale,
                                              .begin = range.begin,
                                              .end = range.end});
  }

  /// (Definition::parameters) each; the remainder is empty unless parameters are bfloat16.
  SpanOf<C, Memory> first_moment() const { return first_moment_.span(); }
  SpanOf<C, Memory> second_moment() const { return second_moment_.span(); }
  SpanOf<std::int16_t, Memory> remainder() const { return remainder_.span(); }

  /// Copies everything from the host; sizes must match.
  void write(std::span<const C> first_moment, std::span<const C> second_moment,
             std::span<const std::int16_t> remainder) {
    first_moment_.write(first_moment);
    second_moment_.write(second_moment);
    remainder_.write(remainder);
  }

 private:
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }
  static constexpr auto count = static_cast<std::size_t>(Definition::parameters);

  /// The offsets at which ranges of parameters with weight decay begin and end in turn.
  using Boundaries = Array<Index, Memory>;
  static Boundaries boundaries_of(Decay decay) {
    std::vector<Index> boundaries;
    Definition::visit_parameters([&](const Parameter& parameter) {
      const bool decaying = boundaries.size() % 2 == 1;
      if (decays(parameter.kind, decay) != decaying) boundaries.push_back(parameter.offset);
    });
    Boundaries array(boundaries.size());
    array.write(boundaries);
    return array;
  }

  /// Updates a range without selection biases.
  void update_piece(Backend& device, S* parameters, const C* gradients, const AdamW& adamw, const Step& step,
                    IndexRange range) {
    if (range.begin >= range.end) return;
    const double time = static_cast<double>(step.number);
    const Boundaries& decaying = adamw.decay == Decay::everything ? decaying_everything_ : decaying_matrices_;
    passes().update(device, {.count = range.end - range.begin,
                             .parameters = parameters + range.begin,
                             .remainder = keeps_remainder ? remainder_.data() + range.begin : nullptr,
                             .gradient = gradients + range.begin,
                             .first_moment = first_moment_.data() + range.begin,
                             .second_moment = second_moment_.data() + range.begin,
                             .scale = step.scale,
                             .rate = step.learning_rate,
                             .beta1 = adamw.beta1,
                             .beta2 = adamw.beta2,
                             .epsilon = adamw.epsilon,
                             .decay = adamw.weight_decay,
                             .decay_boundaries = decaying.data(),
                             .boundary_count = static_cast<Index>(decaying.size()),
                             .correction1 = 1 - std::pow(adamw.beta1, time),
                             .correction2 = 1 - std::pow(adamw.beta2, time),
                             .squares = squares_.data(),
                             .clip_norm = step.clip_norm,
                             .first = range.begin});
  }

  Zeros<C, Memory> first_moment_, second_moment_;
  Zeros<std::int16_t, Memory> remainder_;
  Boundaries decaying_matrices_ = boundaries_of(Decay::matrices);
  Boundaries decaying_everything_ = boundaries_of(Decay::everything);
  Array<double, Memory> squares_{std::size_t{1}};  // the sum of the squares of the gradients
  std::vector<SelectionBiasPlace> biases_;
  Array<SelectionBiasPlace, Memory> bias_places_;
};

}  // namespace moe_mamba::inline v0_2
