#pragma once

#include <algorithm>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/passes.hpp"
#include "moe_mamba/runtime/backend.hpp"

namespace moe_mamba::inline v0_2 {

/// How a workspace's block of memory is divided for a batch of some shape. The report lies at its beginning, whatever
/// the shape.
template <class Definition, StorageScalar S, class Backend>
struct PassBuffers {
  using C = compute_t<S>;
  using A = activation_t<S, Backend>;
  using Input = InputOf<Definition, S>;
  using Body = typename Definition::Body;
  static constexpr bool on_host = Backend::Memory::on_host;
  static constexpr Index target_width = TokenDefinition<Definition> ? 1 : Definition::output_width;
  /// The routers' reports, then the sum of the losses over the targets, and their number.
  static constexpr Index report_size = Body::report_size + 2;

  constexpr PassBuffers(Arena arena, Shape shape, bool training)
      : report(arena.take<double>(report_size)),
        x(arena.rows<C>(shape.tokens(), Definition::width)),
        normed(arena.rows<A>(shape.tokens(), Definition::width)),
        norm(arena, shape) {
    const Index tokens = shape.tokens();
    if (training || !on_host) inputs = arena.take<Input>(tokens * Definition::input_width);
    if (!on_host) {
      targets = arena.take<Input>(tokens * target_width);
      outputs = arena.take<C>(outputs_at_once(shape) * Definition::output_width);
    }
    if (training) {
      dnormed = arena.rows<A>(tokens, Definition::width);
      dx = arena.rows<C>(tokens, Definition::width);
      tape = arena.block(Body::template tape_bytes<A>(shape));
    }
    scratch = arena;
  }

  /// Rows of outputs that are copied between host and device at a time: 64 MiB of them, but the last of each sequence at
  /// least.
  static constexpr Index outputs_at_once(Shape shape) {
    constexpr Index most = (Index{64} << 20) / Index{sizeof(C)} / Definition::output_width;
    return std::min(shape.tokens(), std::max({Index{1}, shape.batch, most}));
  }

  /// Bytes of all but the scratch.
  static constexpr std::size_t bytes(Shape shape, bool training) {
    return PassBuffers(Arena(), shape, training).scratch.used();
  }

  double* report;        // (report_size)
  MatrixView<C> x;       // (T, D): the residual stream
  MatrixView<A> normed;  // (T, D): after the final norm
  typename Definition::Norm::template Saved<A> norm;
  MatrixView<A> dnormed;     // (T, D): the gradient w.r.t. `normed`
  MatrixView<C> dx;          // (T, D): the gradient w.r.t. the stream
  Input* inputs = nullptr;   // (T) tokens or (T, I): a copy, for the backward pass or because the host has them
  Input* targets = nullptr;  // (T) tokens or (T, O): a copy, where the host has them
  C* outputs = nullptr;      // (outputs_at_once, O): staged on their way to the host, or their gradients from it
  Arena tape;                // what the layers keep for the backward pass
  Arena scratch;
};

}  // namespace moe_mamba::inline v0_2
