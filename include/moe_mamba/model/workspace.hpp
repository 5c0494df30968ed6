#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>

#include "moe_mamba/blocks/layer.hpp"
#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/losses.hpp"
#include "moe_mamba/model/pass_buffers.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/model/stage.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

namespace detail {

/// `chunk`, which is how many tokens are read at a time. Throws std::invalid_argument if it exceeds the limit of
/// workspaces.
inline Index checked_chunk(Index chunk) {
  require(chunk >= 1 && chunk <= Index{1} << 40, "chunk", chunk, "1 to 2^40 tokens");
  return chunk;
}

}  // namespace detail

/// The purpose of a workspace. Training keeps saved activations and takes far more memory.
enum class Purpose { inference, training };

/// The memory that calls on a model work in, sized once for the largest batch and longest sequence; packed sequences
/// may be more numerous and longer if they need no more memory. A workspace serves one call at a time; calls on
/// different workspaces may run concurrently, even on the same model.
template <class Definition, StorageScalar S = float, class Backend = Cpu>
class Workspace {
  static constexpr detail::WholeModel<Definition> checked{};
  using Body = typename Definition::Body;

 public:
  using Memory = typename Backend::Memory;
  using Input = InputOf<Definition, S>;
  using Buffers = StagingBuffers<Definition, S, Backend>;
  using Call = PassCall<Definition, S, Backend>;

  /// `device` must outlive the workspace. Throws std::invalid_argument for an empty shape, and std::bad_alloc or the
  /// backend's own error if there is not enough memory.
  Workspace(Backend& device, Shape largest, Purpose purpose = Purpose::inference)
      : device_(device),
        largest_(checked_shape(largest)),
        purpose_(purpose),
        own_(bytes(device, largest, purpose)),
        data_(own_.data()),
        size_(own_.size()),
        thread_scratch_(thread_scratch(device, largest, purpose)) {
    Memory::clear(data_, sizeof(double) * report_size);
  }

  /// The same in the caller's memory: at least bytes(device, largest, purpose) bytes, aligned to 64, that outlive the
  /// workspace.
  Workspace(Backend& device, Shape largest, Purpose purpose, SpanOf<std::byte, Memory> memory)
      : device_(device),
        largest_(checked_shape(largest)),
        purpose_(purpose),
        data_(memory.data()),
        size_(memory.size() / Arena::alignment * Arena::alignment),
        thread_scratch_(thread_scratch(device, largest, purpose)) {
    const std::size_t needed = bytes(device, largest, purpose);
    require(memory.size() >= needed, "memory.size()", memory.size(),
            [&] { return std::to_string(needed) + " bytes or more for this shape"; });
    require(reinterpret_cast<std::uintptr_t>(data_) % Arena::alignment == 0, "memory.data()", "unaligned",
            "aligned to 64 bytes");
    Memory::clear(data_, sizeof(double) * report_size);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  /// The size in bytes of a workspace for this shape and purpose.
  static std::size_t bytes(Backend& device, Shape largest, Purpose purpose) {
    return PassesOf<Definition, S, Backend>::get().workspace_bytes(device, largest, purpose == Purpose::training);
  }

  /// A largest shape for which a workspace has room for a batch of this shape, and for all batches that one for `old`
  /// has room for.
  static Shape largest_for(Backend& device, Shape shape, Shape old, Purpose purpose) {
    Shape largest{std::max({Index{1}, shape.batch, old.batch}), std::max({Index{1}, shape.length, old.length})};
    if (shape.lengths != nullptr) {
      // As long as the mean, plus some for the overhead of each sequence; doubled until it is enough.
      largest.length = std::max(shape.total / largest.batch + 64, old.length);
      const std::size_t wanted = bytes(device, shape, purpose);
      while (bytes(device, largest, purpose) < wanted) largest.length *= 2;
    }
    return largest;
  }

  Backend& device() const { return device_; }
  Shape largest() const { return largest_; }
  Purpose purpose() const { return purpose_; }

  /// The workspace's memory, its own or the caller's.
  SpanOf<std::byte, Memory> memory() const { return {data_, size_}; }

  /// Whether a batch of this shape fits in this workspace.
  bool fits(const Shape& shape) const {
    if (shape.lengths != nullptr) return bytes(device_, shape, purpose_) <= size_;
    return shape.batch <= largest_.batch && shape.length <= largest_.length;
  }

  /// Calls visit(RouterReport) with the report of each router for the last call, in order.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    Index layer = 0;
    Body::visit_routers(visit, host_report(), layer);
  }

  /// The auxiliary losses of the last call, as they enter the loss.
  double auxiliary_loss() const { return Definition::auxiliary_weight * Body::auxiliary_loss(host_report()); }

  /// The losses of the last loss() or gradient(). These three wait for it on a device.
  Losses losses() const {
    const double* const totals = host_report() + Body::report_size;
    return {totals[0] / std::max(totals[1], 1.0), auxiliary_loss(), static_cast<Index>(totals[1])};
  }

  /// Throws std::invalid_argument for a shape beyond the limits of any workspace, or of this one.
  static void check_shape(Shape shape) {
    require(shape.batch >= 0, "shape.batch", shape.batch, "0 or more sequences");
    require(shape.length >= 0, "shape.length", shape.length, "0 or more steps");
    if (shape.lengths == nullptr) {
      require(shape.length <= most_tokens / std::max<Index>(shape.batch, 1), "shape.tokens()", "more than 2^40",
              "2^40 or fewer");
      return;
    }
    if constexpr (!Body::takes_packed) {
      detail::raise<std::invalid_argument>(
          error_text("shape.lengths", "given",
                     "none, as the layer " + Definition::layer_without_packing() +
                         " does not say takes_packed: sequences must be equally long"));
    }
    Index total = 0;
    for (Index b = 0; b < shape.batch; ++b) {
      require(shape.lengths[b] >= 0, "a sequence's length", shape.lengths[b], "0 or more steps");
      require(shape.lengths[b] <= most_tokens - total, "shape.tokens()", "more than 2^40", "2^40 or fewer");
      total += shape.lengths[b];
    }
    require(total == shape.total, "shape.total", shape.total, "the sum of the lengths, as Shape::packed() computes it");
  }
  void check(Shape shape) const {
    if (shape.lengths != nullptr) {
      check_shape(shape);
      require(fits(shape), "shape", "packed sequences for which the workspace is too small", [&] {
        return std::to_string(size_) + " bytes of memory; these take " +
               std::to_string(bytes(device_, shape, purpose_));
      });
      return;
    }
    require(shape.batch >= 0 && shape.batch <= largest_.batch, "shape.batch", shape.batch,
            [&] { return "0 to " + std::to_string(largest_.batch) + ", the workspace's largest"; });
    require(shape.length >= 0 && shape.length <= largest_.length, "shape.length", shape.length,
            [&] { return "0 to " + std::to_string(largest_.length) + ", the workspace's largest"; });
  }

  /// For Session. Whether a session is open on this workspace:
  ExclusiveCall::Flag& in_use() const { return in_use_; }
  /// Its buffers for a batch of this shape, which fits:
  Buffers buffers(Shape shape) const {
    Arena arena(data_);
    return Buffers(arena, shape, purpose_ == Purpose::training);
  }
  /// A pass over such a batch:
  Call call(Shape shape, const S* parameters) const {
    // Packed sequences may need other parts of the same memory.
    const std::size_t threads = shape.lengths == nullptr ? thread_scratch_ : thread_scratch(device_, shape, purpose_);
    return {device_, shape,     purpose_ == Purpose::training, Arena(data_), data_ + (size_ - threads),
            threads, parameters};
  }
  /// Sums over a batch, in the device's memory: the routers' reports, the sum of the losses, their number.
  SpanOf<double, Memory> report() const { return {buffers({}).report, report_size}; }

  /// A forward pass whose buffers are kept for a backward pass.
  struct Recorded {
    Shape shape;
    const Input* inputs;
  };
  const std::optional<Recorded>& recorded() const { return recorded_; }
  void record(const Recorded& pass) { recorded_ = pass; }
  /// Invalidates the recorded pass and the host's copy of the report, as any pass does.
  void invalidate() {
    recorded_.reset();
    report_copied_ = false;
  }

 private:
  static constexpr Index most_tokens = Index{1} << 40;
  static constexpr auto report_size = static_cast<std::size_t>(Buffers::report_size);

  static std::size_t thread_scratch(Backend& device, Shape largest, Purpose purpose) {
    return PassesOf<Definition, S, Backend>::get().thread_scratch_bytes(device, largest, purpose == Purpose::training);
  }

  static Shape checked_shape(Shape largest) {
    require(largest.batch >= 1, "largest.batch", largest.batch, "1 or more sequences");
    require(largest.length >= 1, "largest.length", largest.length, "1 or more steps");
    require(largest.length <= most_tokens / largest.batch, "largest.tokens()", "more than 2^40", "2^40 or fewer");
    return largest;
  }

  const double* host_report() const {
    if constexpr (Memory::on_host) {
      return report().data();
    } else {
      if (!report_copied_) device_.download(report_copy_.data(), report().data(), report_size * sizeof(double));
      report_copied_ = true;
      return report_copy_.data();
    }
  }

  mutable ExclusiveCall::Flag in_use_;
  Backend& device_;
  Shape largest_;
  Purpose purpose_;
  Memory own_;  // empty if the memory is the caller's
  std::byte* data_;
  std::size_t size_;
  std::size_t thread_scratch_;  // bytes of it for all threads of the device, for the largest shape
  std::optional<Recorded> recorded_;
  mutable std::array<double, Memory::on_host ? 0 : report_size> report_copy_;  // for the host
  mutable bool report_copied_ = false;                                         // since the last pass
};

}  // namespace moe_mamba::inline v0_2
