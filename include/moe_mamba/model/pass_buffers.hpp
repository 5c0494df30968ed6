#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// What of a workspace's block of memory sessions use themselves: the report, at its beginning whatever the shape, and
/// copies of what comes from the host or goes to it. What its size is depends on no kernel.
template <class Definition, StorageScalar S, class Backend>
struct StagingBuffers {
  using C = compute_t<S>;
  using Input = InputOf<Definition, S>;
  static constexpr bool on_host = Backend::Memory::on_host;
  static constexpr Index target_width = TokenDefinition<Definition> ? 1 : Definition::output_width;
  /// The routers' reports, then the sum of the losses over the targets, and their number.
  static constexpr Index report_size = Definition::Body::report_size + 2;

  constexpr StagingBuffers(Arena& arena, Shape shape, bool training) : report(arena.take<double>(report_size)) {
    if (training || !on_host) inputs = arena.take<Input>(shape.tokens() * Definition::input_width);
    if (!on_host) {
      targets = arena.take<Input>(shape.tokens() * target_width);
      outputs = arena.take<C>(outputs_at_once(shape) * Definition::output_width);
    }
  }

  /// Rows of outputs that are copied between host and device at a time: 64 MiB of them, but the last of each sequence at
  /// least.
  static constexpr Index outputs_at_once(Shape shape) {
    constexpr Index most = (Index{64} << 20) / Index{sizeof(C)} / Definition::output_width;
    return std::min(shape.tokens(), std::max({Index{1}, shape.batch, most}));
  }

  double* report;            // (report_size)
  Input* inputs = nullptr;   // (T) tokens or (T, I): a copy, for the backward pass or because the host has them
  Input* targets = nullptr;  // (T) tokens or (T, O): a copy, where the host has them
  C* outputs = nullptr;      // (outputs_at_once, O): staged on their way to the host, or their gradients from it
};

/// How the block is divided for a batch of some shape.
template <class Definition, StorageScalar S, class Backend>
struct PassBuffers : StagingBuffers<Definition, S, Backend> {
  using Staging = StagingBuffers<Definition, S, Backend>;
  using C = compute_t<S>;
  using A = activation_t<S, Backend>;

  PassBuffers(Arena arena, Backend& device, Shape shape, bool training)
      : Staging(arena, shape, training),
        x(arena.rows<C>(shape.tokens(), Definition::width)),
        normed(arena.rows<A>(shape.tokens(), Definition::width)),
        norm(arena, device, shape) {
    if (training) {
      dnormed = arena.rows<A>(shape.tokens(), Definition::width);
      dx = arena.rows<C>(shape.tokens(), Definition::width);
      tape = arena.block(Definition::Body::template tape_bytes<A>(device, shape));
    }
    scratch = arena;
  }

  /// Bytes of all but the scratch.
  static std::size_t bytes(Backend& device, Shape shape, bool training) {
    return PassBuffers(Arena(), device, shape, training).scratch.used();
  }

  MatrixView<C> x;       // (T, D): the residual stream
  MatrixView<A> normed;  // (T, D): after the final norm
  typename Definition::Norm::template Saved<A> norm;
  MatrixView<A> dnormed;  // (T, D): the gradient w.r.t. `normed`
  MatrixView<C> dx;       // (T, D): the gradient w.r.t. the stream
  Arena tape;             // what the layers keep for the backward pass
  Arena scratch;
};

}  // namespace moe_mamba::inline v0_2
