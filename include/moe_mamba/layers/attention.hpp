#pragma once

#include <algorithm>

#include "moe_mamba/blocks/layer_of.hpp"
#include "moe_mamba/blocks/projection.hpp"
#include "moe_mamba/ops/attention.hpp"
#include "moe_mamba/ops/rotary.hpp"

namespace moe_mamba::inline v0_2 {

/// Which of attention's projections have biases.
enum class AttentionBiases { none, input, all };

/// The options of an attention layer.
struct AttentionOptions {
  int heads = 1;             ///< H, of queries
  int key_value_heads = 0;   ///< G; 0: as many as heads
  int head_width = 0;        ///< d; 0: the model's width over the heads
  int context = 1;           ///< N, the number of last positions that a step attends to, including its own
  bool positions = true;     ///< whether there are rotary positions
  int rotary_base = 10'000;  ///< the base of their wavelengths
  int rotary_width = 0;      ///< R, the number of rotated elements per head; 0: all
  AttentionBiases biases = AttentionBiases::none;

  /// The same with every default that depends on the width resolved; a rotary width of 0 then means no positions.
  constexpr AttentionOptions of_width(int width) const {
    AttentionOptions all = *this;
    if (key_value_heads == 0) all.key_value_heads = heads;
    if (head_width == 0) all.head_width = width / heads;
    if (rotary_width == 0) all.rotary_width = all.head_width;
    if (!positions) all.rotary_width = all.rotary_base = 0;
    return all;
  }
};

/// Causal attention (Vaswani et al. 2017) of H heads of width d, in groups that share G heads of keys and values
/// (Ainslie et al. 2023), with rotary positions (Su et al. 2021), over the last N positions:
///
///   q, k, v = q_proj(x), k_proj(x), v_proj(x);  q, k rotated by their positions
///   out = o_proj(softmax(q · k / sqrt(d)) v), each step over itself and the N - 1 steps before it
///
/// A sequence carries the last N keys and values and the number of steps read so far: 2 N G d + 2 scalars.
template <int D, AttentionOptions Options>
struct AttentionLayer : LayerDefaults {
  static constexpr AttentionHeads heads{Options.heads, Options.key_value_heads, Options.context};
  static constexpr int d = Options.head_width;
  static constexpr int q_size = static_cast<int>(heads.queries) * d, k_size = static_cast<int>(heads.key_values) * d;
  static constexpr int size = q_size + 2 * k_size;
  static constexpr bool input_biases = Options.biases != AttentionBiases::none;
  static constexpr bool output_bias = Options.biases == AttentionBiases::all;
  using InProjection = Projection<D, size, input_biases>;
  using OutProjection = Projection<q_size, D, output_bias>;
  using Sum = LayerOf<InProjection, OutProjection>;

  template <class Bind>
  struct Weights {
    static constexpr Initializer of_input = Initializer::uniform(D);
    constexpr explicit Weights(Bind& bind)
        : q(bind.matrix("q_proj.weight", q_size, D, of_input)),
          k(bind.matrix("k_proj.weight", k_size, D, of_input)),
          v(bind.matrix("v_proj.weight", k_size, D, of_input)),
          out(bind.matrix("o_proj.weight", D, q_size, Initializer::uniform(q_size).scaled_per_branch())),
          q_bias(bind.vector_if(input_biases, "q_proj.bias", q_size, ParameterKind::bias, {})),
          k_bias(bind.vector_if(input_biases, "k_proj.bias", k_size, ParameterKind::bias, {})),
          v_bias(bind.vector_if(input_biases, "v_proj.bias", k_size, ParameterKind::bias, {})),
          out_bias(bind.vector_if(output_bias, "o_proj.bias", D, ParameterKind::bias, {})) {}
    typename Bind::Matrix q;                       // (H d, D)
    typename Bind::Matrix k, v;                    // (G d, D)
    typename Bind::Matrix out;                     // (D, H d)
    typename Bind::Vector q_bias, k_bias, v_bias;  // (H d), (G d), (G d) or null
    typename Bind::Vector out_bias;                // (D) or null

    /// The three input projections are stacked: they form one matrix, (size, D), and one bias, (size).
    constexpr ProjectionWeights<Bind> input() const { return {stacked(q, k, v), q_bias}; }
    constexpr ProjectionWeights<Bind> output() const { return {out, out_bias}; }
  };

  static constexpr Index active_parameters = Sum::active_parameters;
  static constexpr bool takes_packed = true;
  static constexpr Index state_size = AttentionCache<d>(heads).size();
  template <class C>
  static std::size_t thread_scratch(const auto& device, Shape shape, bool training) {
    return Sum::template thread_scratch<C>(device, shape, training);
  }

  /// The projections, and per head two products of width d with each row that a step attends to, if the window is full.
  static constexpr double flops_per_token = Sum::flops_per_token + 4.0 * q_size * static_cast<double>(heads.context);

  /// The parts of (T, (H + 2G) d).
  template <class C>
  struct Parts {
    explicit Parts(MatrixView<C> qkv)
        : q(qkv.column_block(0, q_size)),
          k(qkv.column_block(q_size, k_size)),
          v(qkv.column_block(q_size + k_size, k_size)) {}
    MatrixView<C> q, k, v;
  };

  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : qkv(arena.rows<C>(shape.tokens(), size)),
          mixed(arena.rows<C>(shape.tokens(), q_size)),
          log_sums(arena.rows<compute_t<C>>(shape.tokens(), heads.queries)),
          state(arena.rows<compute_t<C>>(shape.batch, state_size)) {}
    MatrixView<C> qkv;                  // (T, (H + 2G) d): queries, keys and values, rotated
    MatrixView<C> mixed;                // (T, H d): sums of values
    MatrixView<compute_t<C>> log_sums;  // (T, H)
    MatrixView<compute_t<C>> state;     // (B, state_size): a copy of the initial states
  };

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape)
        : attention(arena.block(causal_attention_scratch<C, d>(device, shape, heads))) {}
    Arena attention;
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape)
        : dmixed(arena.rows<C>(shape.tokens(), q_size)),
          dqkv(arena.rows<C>(shape.tokens(), size)),
          attention(arena.block(causal_attention_scratch<C, d>(device, shape, heads))) {}
    MatrixView<C> dmixed;  // (T, H d)
    MatrixView<C> dqkv;    // (T, (H + 2G) d)
    Arena attention;
  };

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    auto& device = run.device;
    const ForwardScratch<C> scratch(run.scratch, device, run.shape);
    const Parts<C> part(saved.qkv);
    InProjection::forward(run, w.input(), x, saved.qkv);
    rotate(device, run.shape, saved.qkv, run.state.at(position), false);
    causal_attention(device, CausalAttention<C, d>{.shape = run.shape,
                                                   .heads = heads,
                                                   .q = part.q,
                                                   .k = part.k,
                                                   .v = part.v,
                                                   .state = run.state,
                                                   .saved_state = run.training ? saved.state.data : nullptr,
                                                   .y = saved.mixed,
                                                   .log_sums = run.training ? saved.log_sums.data : nullptr,
                                                   .scratch = scratch.attention});
    OutProjection::forward(run, w.output(), saved.mixed, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const Parts<C> part(saved.qkv), dpart(scratch.dqkv);
    OutProjection::backward(run, w.output(), g.output(), saved.mixed, dy, scratch.dmixed);
    causal_attention_backward(device, CausalAttentionBackward<C, d>{.shape = run.shape,
                                                                    .heads = heads,
                                                                    .q = part.q,
                                                                    .k = part.k,
                                                                    .v = part.v,
                                                                    .saved_state = saved.state.data,
                                                                    .y = saved.mixed,
                                                                    .log_sums = saved.log_sums.data,
                                                                    .dy = scratch.dmixed,
                                                                    .dq = dpart.q,
                                                                    .dk = dpart.k,
                                                                    .dv = dpart.v,
                                                                    .dstate = run.dstate,
                                                                    .scratch = scratch.attention});
    rotate(device, run.shape, scratch.dqkv, StateView<const compute_t<C>>{saved.state.data + position, state_size},
           true);
    InProjection::backward(run, w.input(), g.input(), x, scratch.dqkv, dx);
  }

 private:
  static constexpr Index position = AttentionCache<d>(heads).position();

  /// Rotates queries and keys, which are adjacent columns, or the gradients with respect to them.
  template <class Device, class C>
  static void rotate(Device& device, Shape shape, MatrixView<C> qkv, StateView<const compute_t<C>> positions,
                     bool backward) {
    if constexpr (Options.rotary_width > 0) {
      rotary_embedding(device, RotaryEmbedding<C>{.shape = shape,
                                                  .x = qkv.column_block(0, q_size + k_size),
                                                  .head_width = d,
                                                  .rotary_width = Options.rotary_width,
                                                  .base = static_cast<double>(Options.rotary_base),
                                                  .positions = positions,
                                                  .backward = backward});
    }
  }
};

}  // namespace moe_mamba::inline v0_2
