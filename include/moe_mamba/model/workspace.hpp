#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/backend.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/model/stage.hpp"

namespace moe_mamba {

/// What a workspace is for. Training keeps what a backward pass needs and takes far more memory.
enum class Purpose { inference, training };

template <class Definition, StorageScalar S, class Backend>
class Model;

/// A definition whose inputs are token ids: a LanguageModel.
template <class T>
concept TokenDefinition = requires {
  T::vocabulary;
};

/// The memory that calls on a model work in, sized once for the largest batch and longest sequence to come. Calls on
/// one workspace follow one another; calls on different ones may run at the same time, on the same model too.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
class Workspace {
  static constexpr detail::WholeModel<Definition> checked{};

 public:
  using Compute = compute_t<S>;
  static constexpr bool takes_tokens = TokenDefinition<Definition>;
  using Input = std::conditional_t<takes_tokens, Token, Compute>;

  /// `device` must outlive the workspace. Throws std::invalid_argument for an empty shape and std::bad_alloc.
  Workspace(Backend& device, Shape largest, Purpose purpose = Purpose::inference)
      : device_(device), largest_(largest), purpose_(purpose), report_(report_size + 1) {
    require(largest.batch >= 1, "largest.batch", largest.batch, "1 or more sequences");
    require(largest.length >= 1, "largest.length", largest.length, "1 or more steps");
    require(largest.length <= largest_tokens / largest.batch, "largest.tokens()", "more than 2^40", "2^40 or fewer");
    memory_ = typename Backend::Memory(bytes(device, largest, purpose));
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// Bytes that a workspace of this size and purpose takes.
  static std::size_t bytes(Backend& device, Shape largest, Purpose purpose) {
    const bool training = purpose == Purpose::training;
    std::size_t scratch = Body::template scratch_bytes<Compute>(device, largest, training);
    if constexpr (takes_tokens) {
      scratch = std::max(scratch, Definition::template loss_scratch<Compute>(device, largest.tokens()));
    } else {
      scratch = std::max(scratch, bytes_of<Outputs>(largest));
    }
    return bytes_of<Buffers>(largest, training) + scratch;
  }

  Backend& device() const { return device_; }
  Shape largest() const { return largest_; }
  Purpose purpose() const { return purpose_; }

  /// Shows visit(RouterReport) what each mixture-of-experts layer reports of the last call, in their order.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    Index layer = 0;
    Body::visit_routers(visit, report_.data(), layer);
  }

  /// The auxiliary losses of the last call, as they enter the loss.
  double auxiliary_loss() const { return Definition::auxiliary_weight * Body::auxiliary_loss(report_.data()); }

 private:
  friend class Model<Definition, S, Backend>;
  using Body = typename Definition::Body;
  using Norm = typename Definition::Norm;
  static constexpr Index largest_tokens = Index{1} << 40;
  static constexpr std::size_t report_size = static_cast<std::size_t>(Body::report_size);

  struct Buffers {
    constexpr Buffers(Arena& arena, Shape shape, bool training) {
      const Index tokens = shape.tokens();
      x = matrix(arena.take<Compute>(tokens * Definition::width), tokens, Index{Definition::width});
      normed = matrix(arena.take<Compute>(tokens * Definition::width), tokens, Index{Definition::width});
      norm_tape = arena;
      arena = arena.advanced(tape_bytes<Norm, Compute>(shape));
      if (training) {
        inputs = arena.take<Input>(tokens * Definition::input_width);
        dx = matrix(arena.take<Compute>(tokens * Definition::width), tokens, Index{Definition::width});
        body_tape = arena;
        arena = arena.advanced(Body::template tape_bytes<Compute>(shape));
      }
      scratch = arena;
    }
    MatrixView<Compute> x;       // (T, D): the residual stream
    MatrixView<Compute> normed;  // (T, D): behind the final norm
    MatrixView<Compute> dx;      // (T, D): gradient by either
    Input* inputs = nullptr;     // (T) tokens or (T, I): a copy, for the backward pass
    Arena norm_tape, body_tape, scratch;
  };

  struct Outputs {
    constexpr Outputs(Arena& arena, Shape shape) { arena.take<Compute>(shape.tokens() * Definition::output_width); }
  };

  Buffers buffers(Shape shape) const {
    Arena arena(memory_.data());
    return Buffers(arena, shape, purpose_ == Purpose::training);
  }

  /// What holds for any workspace, and keeps sizes from overflowing.
  static void check_shape(Shape shape) {
    require(shape.batch >= 1, "shape.batch", shape.batch, "1 or more sequences");
    require(shape.length >= 0, "shape.length", shape.length, "0 or more steps");
    require(shape.length <= largest_tokens / shape.batch, "shape.tokens()", "more than 2^40", "2^40 or fewer");
  }

  void check(Shape shape) const {
    require(shape.batch >= 1 && shape.batch <= largest_.batch, "shape.batch", shape.batch,
            [&] { return "1 to " + std::to_string(largest_.batch) + ", the workspace's largest"; });
    require(shape.length >= 0 && shape.length <= largest_.length, "shape.length", shape.length,
            [&] { return "0 to " + std::to_string(largest_.length) + ", the workspace's largest"; });
  }

  void check_training() const {
    require(purpose_ == Purpose::training, "workspace.purpose()", "inference", "training, for gradients");
  }

  Backend& device_;
  Shape largest_;
  Purpose purpose_;
  typename Backend::Memory memory_;
  std::vector<double> report_;  // of the routers, and last the sum of the losses over the targets
  Shape recorded_{};            // of the forward pass whose tape is kept; batch 0: none
};

}  // namespace moe_mamba
