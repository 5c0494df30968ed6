#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// The part of a workspace's block of memory that sessions use themselves: the report, at the beginning for every
/// shape, and copies of inputs and outputs in host memory. Its size does not depend on any kernel.
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

  /// Rows of outputs that are copied between host and device at a time: 64 MiB, but at least the last row of each
  /// sequence.
  static constexpr Index outputs_at_once(Shape shape) {
    constexpr Index most = (Index{64} << 20) / Index{sizeof(C)} / Definition::output_width;
    return std::min(shape.tokens(), std::max({Index{1}, shape.batch, most}));
  }

  double* report;            // (report_size)
  Input* inputs = nullptr;   // (T) tokens or (T, I): a copy, for the backward pass or if they are in host memory
  Input* targets = nullptr;  // (T) tokens or (T, O): a copy, if they are in host memory
  C* outputs = nullptr;      // (outputs_at_once, O): staging for outputs to the host, or for their gradients from it
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

  /// Bytes of everything except the scratch.
  static std::size_t bytes(Backend& device, Shape shape, bool training) {
    return PassBuffers(Arena(), device, shape, training).scratch.used();
  }

  MatrixView<C> x;       // (T, D): the residual stream
  MatrixView<A> normed;  // (T, D): after the final norm
  typename Definition::Norm::template Saved<A> norm;
  MatrixView<A> dnormed;  // (T, D): the gradient w.r.t. `normed`
  MatrixView<C> dx;       // (T, D): the gradient w.r.t. the stream
  Arena tape;             // saved activations of the layers
  Arena scratch;
};

}  // namespace moe_mamba::inline v0_2
