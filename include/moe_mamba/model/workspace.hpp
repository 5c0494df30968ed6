#pragma once

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/array.hpp"
#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/stage.hpp"

namespace moe_mamba {

/// What a workspace is for. Training keeps what a backward pass needs and takes far more memory.
enum class Purpose { inference, training };

template <class Definition, StorageScalar S, class Backend>
class Model;
template <class Definition, StorageScalar S, class Backend, class Rate>
class Trainer;
template <class Definition, StorageScalar S, class Backend>
class Decoder;
template <class Definition, StorageScalar S, class Backend>
class PassesDefinition;

/// The losses of a batch.
struct Losses {
  double prediction = 0;  ///< mean over the targets: cross-entropy in nats, or squared error of a sequence model
  double auxiliary = 0;   ///< of the routers, as they enter the total
  Index targets = 0;      ///< unmasked tokens; numbers, of a sequence model

  double total() const { return prediction + auxiliary; }

  /// The losses of both batches together: means over the targets of both, so that a batch weighs by how many it has.
  Losses& operator+=(const Losses& other) {
    if (other.targets == 0) return *this;
    targets += other.targets;
    const double share = static_cast<double>(other.targets) / static_cast<double>(targets);
    prediction += share * (other.prediction - prediction);
    auxiliary += share * (other.auxiliary - auxiliary);
    return *this;
  }
};

/// The memory that calls on a model work in, sized once for the largest batch and longest sequence to come; packed
/// sequences may be more and longer, as long as they need no more memory. Calls on one workspace follow one another; calls on different ones may run at the same time, on the same model too.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
class Workspace {
  static constexpr detail::WholeModel<Definition> checked{};

 public:
  using Compute = compute_t<S>;
  static constexpr bool takes_tokens = TokenDefinition<Definition>;
  using Input = InputOf<Definition, S>;

  /// `device` must outlive the workspace. Throws std::invalid_argument for an empty shape, and std::bad_alloc or the
  /// backend's own error where there is not enough memory.
  Workspace(Backend& device, Shape largest, Purpose purpose = Purpose::inference)
      : device_(device), largest_(largest), purpose_(purpose), report_(report_size) {
    require(largest.batch >= 1, "largest.batch", largest.batch, "1 or more sequences");
    require(largest.length >= 1, "largest.length", largest.length, "1 or more steps");
    require(largest.length <= largest_tokens / largest.batch, "largest.tokens()", "more than 2^40", "2^40 or fewer");
    memory_ = Memory(bytes(device, largest, purpose));
    if constexpr (!Memory::on_host) mirror_.resize(report_size);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Bytes that a workspace of this size and purpose takes.
  static std::size_t bytes(Backend& device, Shape largest, Purpose purpose) {
    const bool training = purpose == Purpose::training;
    return bytes_of<Buffers>(largest, training) +
           PassesOf<Definition, S, Backend>::get().scratch_bytes(device, largest, training);
  }

  Backend& device() const { return device_; }
  Shape largest() const { return largest_; }
  Purpose purpose() const { return purpose_; }

  /// Shows visit(RouterReport) what each mixture-of-experts layer reports of the last call, in their order.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    Index layer = 0;
    Body::visit_routers(visit, report(), layer);
  }

  /// The auxiliary losses of the last call, as they enter the loss.
  double auxiliary_loss() const { return Definition::auxiliary_weight * Body::auxiliary_loss(report()); }

  /// The losses of the last loss() or gradient(). These three wait for it on a device.
  Losses losses() const {
    const double* const totals = report() + Body::report_size;
    return {totals[0] / std::max(totals[1], 1.0), auxiliary_loss(), static_cast<Index>(totals[1])};
  }

 private:
  friend class Model<Definition, S, Backend>;
  friend class PassesDefinition<Definition, S, Backend>;
  template <class, StorageScalar, class, class>
  friend class Trainer;
  friend class Decoder<Definition, S, Backend>;
  using Memory = typename Backend::Memory;
  using Activation = activation_t<S, Backend>;
  using Body = typename Definition::Body;
  using Norm = typename Definition::Norm;
  static constexpr Index largest_tokens = Index{1} << 40;
  /// The routers' reports, then the sum of the losses over the targets, and their number.
  static constexpr std::size_t report_size = static_cast<std::size_t>(Body::report_size) + 2;
  static constexpr Index target_width = takes_tokens ? 1 : Definition::output_width;

  struct Buffers {
    constexpr Buffers(Arena& arena, Shape shape, bool training)
        : x(arena.rows<Compute>(shape.tokens(), Definition::width)),
          normed(arena.rows<Activation>(shape.tokens(), Definition::width)),
          norm(arena, shape) {
      const Index tokens = shape.tokens();
      if (training || !Memory::on_host) inputs = arena.take<Input>(tokens * Definition::input_width);
      if (!Memory::on_host) {
        targets = arena.take<Input>(tokens * target_width);
        outputs = arena.take<Compute>(outputs_at_once(shape) * Definition::output_width);
      }
      if (training) {
        dnormed = arena.rows<Activation>(tokens, Definition::width);
        dx = arena.rows<Compute>(tokens, Definition::width);
        body_tape = arena.block(Body::template tape_bytes<Activation>(shape));
      }
      scratch = arena;
    }
    MatrixView<Compute> x;          // (T, D): the residual stream
    MatrixView<Activation> normed;  // (T, D): behind the final norm
    typename Norm::template Saved<Activation> norm;
    MatrixView<Activation> dnormed;  // (T, D): the gradient by `normed`
    MatrixView<Compute> dx;          // (T, D): the gradient by the stream
    Input* inputs = nullptr;         // (T) tokens or (T, I): a copy, for the backward pass or because the host has them
    Input* targets = nullptr;        // (T) tokens or (T, O): a copy, where the host has them
    Compute* outputs = nullptr;      // (outputs_at_once, O): on their way to the host, or their gradients from it
    Arena body_tape, scratch;
  };

  /// Rows of outputs that are copied between host and device at a time: 64 MiB of them, but the last of each sequence at
  /// least.
  static constexpr Index outputs_at_once(Shape shape) {
    constexpr Index most = (Index{64} << 20) / Index{sizeof(Compute)} / Definition::output_width;
    return std::min(shape.tokens(), std::max({Index{1}, shape.batch, most}));
  }

  /// What a call holds while it runs. Throws std::logic_error where another call is on the workspace or its device.
  struct Use {
    ExclusiveCall workspace, device;
  };
  Use use() const { return {{in_use_, "workspace"}, {device_.in_use(), "device"}}; }

  Buffers buffers(Shape shape) const {
    Arena arena(memory_.data());
    return Buffers(arena, shape, purpose_ == Purpose::training);
  }

  /// Where the device finds what the host has.
  const Input* keep_inputs(std::span<const Input> inputs, Shape shape) {
    if (Memory::on_host && purpose_ == Purpose::inference) return inputs.data();
    return keep(inputs, buffers(shape).inputs);
  }
  const Input* keep_targets(std::span<const Input> targets, Shape shape) {
    if (Memory::on_host) return targets.data();
    return keep(targets, buffers(shape).targets);
  }
  const Input* keep(std::span<const Input> values, Input* to) {
    if constexpr (Memory::on_host) {
      std::copy(values.begin(), values.end(), to);
    } else if (!values.empty()) {
      device_.upload(to, values.data(), values.size_bytes());
    }
    return to;
  }

  /// A call begins: what was recorded or reported before is not to be had any more.
  void begin() {
    recorded_.reset();
    reported_ = false;
  }

  /// The report on the host.
  const double* report() const {
    if constexpr (Memory::on_host) {
      return report_.data();
    } else {
      if (!reported_) device_.download(mirror_.data(), report_.data(), report_size * sizeof(double));
      reported_ = true;
      return mirror_.data();
    }
  }

  /// What holds for any workspace, and keeps sizes from overflowing.
  static void check_shape(Shape shape) {
    require(shape.batch >= 0, "shape.batch", shape.batch, "0 or more sequences");
    require(shape.length >= 0, "shape.length", shape.length, "0 or more steps");
    if (shape.lengths == nullptr) {
      require(shape.length <= largest_tokens / std::max<Index>(shape.batch, 1), "shape.tokens()", "more than 2^40",
              "2^40 or fewer");
      return;
    }
    require(Body::takes_packed, "shape.lengths", "given",
            "none: a layer of the model does not say takes_packed, so sequences must be equally long");
    Index total = 0;
    for (Index b = 0; b < shape.batch; ++b) {
      require(shape.lengths[b] >= 0, "a sequence's length", shape.lengths[b], "0 or more steps");
      require(shape.lengths[b] <= largest_tokens - total, "shape.tokens()", "more than 2^40", "2^40 or fewer");
      total += shape.lengths[b];
    }
    require(total == shape.total, "shape.total", shape.total, "the sum of the lengths, as Shape::packed() finds it");
  }

  bool fits(const Shape& shape) const {
    if (shape.lengths != nullptr) return bytes(device_, shape, purpose_) <= memory_.size();
    return shape.batch <= largest_.batch && shape.length <= largest_.length;
  }

  void check(Shape shape) const {
    if (shape.lengths != nullptr) {
      check_shape(shape);
      require(fits(shape), "shape", "packed sequences for which the workspace is too small", [&] {
        return std::to_string(memory_.size()) + " bytes of memory; these take " +
               std::to_string(bytes(device_, shape, purpose_));
      });
      return;
    }
    require(shape.batch >= 0 && shape.batch <= largest_.batch, "shape.batch", shape.batch,
            [&] { return "0 to " + std::to_string(largest_.batch) + ", the workspace's largest"; });
    require(shape.length >= 0 && shape.length <= largest_.length, "shape.length", shape.length,
            [&] { return "0 to " + std::to_string(largest_.length) + ", the workspace's largest"; });
  }

  void check_training() const {
    require(purpose_ == Purpose::training, "workspace.purpose()", "inference", "training, for gradients");
  }

  mutable ExclusiveCall::Flag in_use_;
  Backend& device_;
  Shape largest_;
  Purpose purpose_;
  Memory memory_;
  Array<double, Memory> report_;
  mutable std::vector<double> mirror_;      // of the report, on the host, where that cannot read it
  mutable bool reported_ = false;           // whether mirror_ is that of the last call
  std::optional<Shape> recorded_;           // of the forward pass whose tape is kept
  const Input* recorded_inputs_ = nullptr;  // of that pass
};

}  // namespace moe_mamba
