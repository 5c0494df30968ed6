#pragma once

#include <cstddef>
#include <vector>

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/ops/attention.hpp"
#include "support/data.hpp"

/// Causal attention with random inputs, and its outputs and gradients, for tests.
namespace test::attention {

using namespace moe_mamba;

struct alignas(Arena::alignment) CacheLine {
  std::byte bytes[Arena::alignment];
};

template <class C>
struct Outputs {
  std::vector<C> y, state, saved, log_sums;
};

template <class C>
struct Gradients {
  std::vector<C> dq, dk, dv, dstate;

  /// Calls f(name, a, b) with each pair of members.
  template <class Other, class F>
  void with(const Gradients<Other>& other, const F& f) const {
    f("dq", dq, other.dq), f("dk", dk, other.dk), f("dv", dv, other.dv), f("dstate", dstate, other.dstate);
  }
};

/// Equal arguments give equal values for each C. Rows and states are padded. Sequence b has read `read + b` tokens.
template <class C, int d>
struct Problem {
  Shape shape;
  AttentionHeads heads;
  Index state_size, state_stride, q_columns, k_columns;
  std::vector<C> q, k, v, state, dy, dstate;

  Problem(Shape s, AttentionHeads h, Index read, std::uint64_t seed)
      : shape(s),
        heads(h),
        state_size(AttentionCache<d>(h).size()),
        state_stride(state_size + 5),
        q_columns(h.queries * d),
        k_columns(h.key_values * d) {
    q = test::uniform<C>(s.tokens() * (q_columns + 3), seed + 1, -2, 2);
    k = test::uniform<C>(s.tokens() * (k_columns + 3), seed + 2, -2, 2);
    v = test::uniform<C>(s.tokens() * (k_columns + 3), seed + 3);
    dy = test::uniform<C>(s.tokens() * q_columns, seed + 4);
    state = test::uniform<C>(s.batch * state_stride, seed + 5, -2, 2);
    dstate = test::uniform<C>(s.batch * state_stride, seed + 6);
    for (Index b = 0; b < s.batch; ++b) {
      C* const position = state.data() + b * state_stride + AttentionCache<d>(h).position();
      write_position(read == 0 ? 0 : read + b, position);
    }
  }

  MatrixView<const C> queries(const std::vector<C>& values) const {
    return {values.data(), shape.tokens(), q_columns, q_columns + 3};
  }
  MatrixView<const C> keys(const std::vector<C>& values) const {
    return {values.data(), shape.tokens(), k_columns, k_columns + 3};
  }

  template <class Device>
  Outputs<C> forward(Device& device, bool with_state = true) const {
    const Index t = shape.tokens();
    Outputs<C> out{test::poison<C>(t * q_columns), state, test::poison<C>(shape.batch * state_size),
                   test::poison<C>(t * heads.queries)};
    std::vector<CacheLine> scratch(causal_attention_scratch<C, d>(device, shape, heads) / sizeof(CacheLine));
    causal_attention(device,
                     CausalAttention<C, d>{shape, heads, queries(q), keys(k), keys(v),
                                           with_state ? StateView<C>{out.state.data(), state_stride} : StateView<C>{},
                                           out.saved.data(), matrix(out.y.data(), t, q_columns), out.log_sums.data(),
                                           Arena(reinterpret_cast<std::byte*>(scratch.data()))});
    return out;
  }

  template <class Device>
  Gradients<C> backward(Device& device, const Outputs<C>& forward, bool with_state = true) const {
    const Index t = shape.tokens();
    Gradients<C> g{test::poison<C>(t * q_columns), test::poison<C>(t * k_columns), test::poison<C>(t * k_columns),
                   dstate};
    std::vector<CacheLine> scratch(causal_attention_scratch<C, d>(device, shape, heads) / sizeof(CacheLine));
    causal_attention_backward(
        device, CausalAttentionBackward<C, d>{shape, heads, queries(q), keys(k), keys(v), forward.saved.data(),
                                              matrix(forward.y.data(), t, q_columns), forward.log_sums.data(),
                                              matrix(dy.data(), t, q_columns), matrix(g.dq.data(), t, q_columns),
                                              matrix(g.dk.data(), t, k_columns), matrix(g.dv.data(), t, k_columns),
                                              with_state ? StateView<C>{g.dstate.data(), state_stride} : StateView<C>{},
                                              Arena(reinterpret_cast<std::byte*>(scratch.data()))});
    return g;
  }

  /// Steps first … first + length - 1 of sequence `sequence` alone, with its initial state.
  Problem part(Index sequence, Index first, Index length) const {
    Problem p = *this;
    p.shape = {1, length};
    const auto cut = [&](std::vector<C>& values, Index width) {
      const auto begin = values.begin() + (sequence * shape.length + first) * width;
      values = std::vector<C>(begin, begin + length * width);
    };
    cut(p.q, q_columns + 3), cut(p.k, k_columns + 3), cut(p.v, k_columns + 3), cut(p.dy, q_columns);
    for (auto* states : {&p.state, &p.dstate}) {
      const auto begin = states->begin() + sequence * state_stride;
      *states = std::vector<C>(begin, begin + state_stride);
    }
    return p;
  }
};

}  // namespace test::attention
