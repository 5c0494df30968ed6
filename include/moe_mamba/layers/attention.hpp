#pragma once

#include <algorithm>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/layers/options.hpp"
#include "moe_mamba/ops/attention.hpp"
#include "moe_mamba/ops/linear.hpp"
#include "moe_mamba/ops/rotary.hpp"

namespace moe_mamba {

/// Which of attention's projections have biases.
enum class AttentionBiases { none, input, all };

/// The numbers of an attention layer: heads of queries and of keys and values, their width, the window, and rotary
/// positions, of which a width of 0 stands for none.
template <int Queries, int KeyValues, int Width, int Window, int RotaryBase, int RotatedWidth, AttentionBiases Biases>
struct AttentionConfig {
  static constexpr AttentionHeads heads{Queries, KeyValues, Window};
  static constexpr int width = Width, rotary_base = RotaryBase, rotary_width = RotatedWidth;
  static constexpr AttentionBiases biases = Biases;
};

/// Causal attention (Vaswani et al. 2017) of H heads of width d, in groups that share G heads of keys and values
/// (Ainslie et al. 2023), with rotary positions (Su et al. 2021), over the last N positions:
///
///   q, k, v = q_proj(x), k_proj(x), v_proj(x);  q, k rotated by their positions
///   out = o_proj(softmax(q · k / sqrt(d)) v), each step over itself and the N - 1 steps before it
///
/// A sequence carries the last N keys and values and how many steps it has read: 2 N G d + 2 scalars.
template <int D, class Config>
struct AttentionLayer : LayerDefaults {
  static constexpr AttentionHeads heads = Config::heads;
  static constexpr int d = Config::width;
  static constexpr int q_size = static_cast<int>(heads.queries) * d, k_size = static_cast<int>(heads.key_values) * d;
  static constexpr int size = q_size + 2 * k_size;
  static constexpr bool input_biases = Config::biases != AttentionBiases::none;
  static constexpr bool output_bias = Config::biases == AttentionBiases::all;

  template <class Bind>
  struct Weights {
    static constexpr Initial input{Initial::Law::uniform, 1, D};
    constexpr explicit Weights(Bind& bind)
        : q(bind.matrix("q_proj.weight", q_size, D, input)),
          k(bind.matrix("k_proj.weight", k_size, D, input)),
          v(bind.matrix("v_proj.weight", k_size, D, input)),
          out(bind.matrix("o_proj.weight", D, q_size, {Initial::Law::uniform, 1, q_size, true})),
          q_bias(bind.vector_if(input_biases, "q_proj.bias", q_size, ParameterKind::bias, {})),
          k_bias(bind.vector_if(input_biases, "k_proj.bias", k_size, ParameterKind::bias, {})),
          v_bias(bind.vector_if(input_biases, "v_proj.bias", k_size, ParameterKind::bias, {})),
          out_bias(bind.vector_if(output_bias, "o_proj.bias", D, ParameterKind::bias, {})) {}
    typename Bind::Matrix q;                       // (H d, D)
    typename Bind::Matrix k, v;                    // (G d, D)
    typename Bind::Matrix out;                     // (D, H d)
    typename Bind::Vector q_bias, k_bias, v_bias;  // (H d), (G d), (G d) or null
    typename Bind::Vector out_bias;                // (D) or null

    /// The three input projections lie one below the other: they are one matrix, (size, D), and one bias, (size).
    constexpr auto qkv() const { return stacked(q, k, v); }
    constexpr auto qkv_bias() const { return q_bias; }
  };

  static constexpr Index active_parameters = parameters_of<AttentionLayer>;
  static constexpr bool takes_packed = true;
  static constexpr Index state_size = AttentionCache<d>(heads).size();

  /// The four products, and two products of d a head with each row that a step sees, where that sees a whole window.
  static constexpr double flops_per_token =
      2.0 * D * (size + q_size) + 4.0 * q_size * static_cast<double>(heads.context);

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
    constexpr Saved(Arena& arena, Shape shape)
        : qkv(arena.rows<C>(shape.tokens(), size)),
          mixed(arena.rows<C>(shape.tokens(), q_size)),
          log_sums(arena.take<compute_t<C>>(shape.tokens() * heads.queries)),
          state(arena.take<compute_t<C>>(shape.batch * state_size)) {}
    MatrixView<C> qkv;       // (T, (H + 2G) d): queries, keys and values, rotated
    MatrixView<C> mixed;     // (T, H d): sums of values
    compute_t<C>* log_sums;  // (T, H)
    compute_t<C>* state;     // (B, state_size): what was in the initial states
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
    linear(device, x, w.qkv(), saved.qkv);
    if constexpr (input_biases) add_bias(device, w.qkv_bias(), saved.qkv);
    rotate(device, run.shape, saved.qkv, run.state.at(position), false);
    causal_attention(device, CausalAttention<C, d>{.shape = run.shape,
                                                   .heads = heads,
                                                   .q = part.q,
                                                   .k = part.k,
                                                   .v = part.v,
                                                   .state = run.state,
                                                   .saved_state = run.training ? saved.state : nullptr,
                                                   .y = saved.mixed,
                                                   .log_sums = run.training ? saved.log_sums : nullptr,
                                                   .scratch = scratch.attention});
    linear(device, saved.mixed, w.out, y);
    if constexpr (output_bias) add_bias(device, w.out_bias, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const Parts<C> part(saved.qkv), dpart(scratch.dqkv);
    if constexpr (output_bias) bias_backward(device, dy, g.out_bias);
    linear_backward_weight<S>(device, dy, saved.mixed, g.out);
    linear_backward_input(device, dy, w.out, scratch.dmixed, Into::assign);
    causal_attention_backward(device, CausalAttentionBackward<C, d>{.shape = run.shape,
                                                                    .heads = heads,
                                                                    .q = part.q,
                                                                    .k = part.k,
                                                                    .v = part.v,
                                                                    .saved_state = saved.state,
                                                                    .y = saved.mixed,
                                                                    .log_sums = saved.log_sums,
                                                                    .dy = scratch.dmixed,
                                                                    .dq = dpart.q,
                                                                    .dk = dpart.k,
                                                                    .dv = dpart.v,
                                                                    .dstate = run.dstate,
                                                                    .scratch = scratch.attention});
    rotate(device, run.shape, scratch.dqkv, StateView<const compute_t<C>>{saved.state + position, state_size}, true);
    if constexpr (input_biases) bias_backward(device, scratch.dqkv, g.qkv_bias());
    linear_backward_weight<S>(device, scratch.dqkv, x, g.qkv());
    linear_backward_input(device, scratch.dqkv, w.qkv(), dx, Into::assign);
  }

 private:
  static constexpr Index position = AttentionCache<d>(heads).position();

  /// Queries and keys, which lie side by side, or gradients by them.
  template <class Device, class C>
  static void rotate(Device& device, Shape shape, MatrixView<C> qkv, StateView<const compute_t<C>> positions,
                     bool backward) {
    if constexpr (Config::rotary_width > 0) {
      rotary_embedding(device, RotaryEmbedding<C>{.shape = shape,
                                                  .x = qkv.column_block(0, q_size + k_size),
                                                  .head_width = d,
                                                  .rotary_width = Config::rotary_width,
                                                  .base = Config::rotary_base,
                                                  .positions = positions,
                                                  .backward = backward});
    }
  }
};

namespace detail {

template <class Layer, class Option>
struct AttentionTakes {
  static_assert(is_integer_option<Heads, Option> || is_integer_option<KeyValueHeads, Option> ||
                    is_integer_option<HeadWidth, Option> || is_integer_option<Context, Option> ||
                    is_integer_option<Rotary, Option> || is_integer_option<RotaryWidth, Option> ||
                    is_one_of<Option, NoPositions, InputBiases, Biases>,
                "Attention takes the options Heads<H>, KeyValueHeads<G>, HeadWidth<d>, Context<N>, Rotary<base> and "
                "RotaryWidth<R> or NoPositions, and InputBiases or Biases and no other: AttentionTakes<layer, option>");
};

template <class Layer, class Required, int Times>
struct AttentionNeeds {
  static_assert(Times >= 1,
                "Attention needs the options Heads<H> and Context<N>, how many of the last positions a step sees: "
                "AttentionNeeds<layer, option with an example value, times given>");
};

template <class Layer, int Times>
struct OneKindOfPositions {
  static_assert(Times <= 1,
                "Attention: NoPositions is given once at most, and not beside Rotary<base> or RotaryWidth<R>: "
                "OneKindOfPositions<layer, times given>");
};

template <class Layer, int Times>
struct OneKindOfBiases {
  static_assert(Times <= 1,
                "Attention: InputBiases and Biases exclude each other, and each is given once at most: "
                "OneKindOfBiases<layer, times given>");
};

template <class Layer, class Queries, class KeyValues>
struct AttentionGroups {
  static_assert(Queries::value < 1 || KeyValues::value < 1 || Queries::value % KeyValues::value == 0,
                "Attention: KeyValueHeads must divide Heads: AttentionGroups<layer, Heads, KeyValueHeads>");
};

template <class Layer, class Model, class Queries>
struct AttentionHeadWidth {
  static_assert(Model::value % Queries::value == 0,
                "Attention: without HeadWidth<d> a head is as wide as the model's Width over Heads, which must divide "
                "it: AttentionHeadWidth<layer, Width, Heads>");
  static_assert(
      Model::value / Queries::value <= 256,
      "Attention: without HeadWidth<d> a head is as wide as the model's Width over Heads, which must be 256 or "
      "less: AttentionHeadWidth<layer, Width, Heads>");
};

template <class Layer, class Rotated, class Head>
struct AttentionRotary {
  static_assert(Rotated::value % 2 == 0 && Rotated::value <= Head::value,
                "Attention: rotary positions turn pairs of a head's numbers, so RotaryWidth (without it the width of a "
                "head) must be even and at most the width of a head; allowed too: NoPositions: "
                "AttentionRotary<layer, RotaryWidth, HeadWidth>");
};

template <class Layer, class... Options>
consteval bool check_attention() {
  check<AttentionTakes<Layer, Options>...>();
  check<AttentionNeeds<Layer, Heads<8>, times_given<Heads, Options...>>>();
  check<AttentionNeeds<Layer, Context<2048>, times_given<Context, Options...>>>();
  check_integer_option<Layer, Heads, 1, 1024, Options...>();
  check_integer_option<Layer, KeyValueHeads, 1, 1024, Options...>();
  check_integer_option<Layer, HeadWidth, 1, 256, Options...>();
  check_integer_option<Layer, Context, 1, 1 << 24, Options...>();
  check_integer_option<Layer, Rotary, 2, 1 << 30, Options...>();
  check_integer_option<Layer, RotaryWidth, 2, 256, Options...>();
  constexpr int heads = option_value<Heads, 1, Options...>();
  check<AttentionGroups<Layer, Heads<heads>, KeyValueHeads<option_value<KeyValueHeads, heads, Options...>()>>>();
  constexpr int without = (0 + ... + int(is_one_of<Options, NoPositions>));
  constexpr int rotary = times_given<Rotary, Options...> + times_given<RotaryWidth, Options...>;
  check<OneKindOfPositions<Layer, without + (without > 0 && rotary > 0 ? 1 : 0)>>();
  check<OneKindOfBiases<Layer, (0 + ... + int(is_one_of<Options, InputBiases, Biases>))>>();
  return true;
}

/// What depends on the model's width as well.
template <class Layer, int W, class... Options>
struct AttentionOf {
  static constexpr int heads = std::max(1, option_value<Heads, 1, Options...>());
  static constexpr bool own_width = times_given<HeadWidth, Options...> > 0;
  static constexpr int width = [] {
    if constexpr (!own_width) check<AttentionHeadWidth<Layer, Width<W>, Heads<heads>>>();
    return option_value<HeadWidth, W / heads, Options...>();
  }();
  static constexpr int rotary = [] {
    if constexpr (is_one_of<NoPositions, Options...>) {
      return 0;
    } else {
      constexpr int rotated = option_value<RotaryWidth, width, Options...>();
      check<AttentionRotary<Layer, RotaryWidth<rotated>, HeadWidth<width>>>();
      return rotated;
    }
  }();
  static constexpr AttentionBiases biases = is_one_of<Biases, Options...>        ? AttentionBiases::all
                                            : is_one_of<InputBiases, Options...> ? AttentionBiases::input
                                                                                 : AttentionBiases::none;
  using type =
      AttentionLayer<W, AttentionConfig<heads, option_value<KeyValueHeads, heads, Options...>(), width,
                                        option_value<Context, 1, Options...>(),
                                        rotary == 0 ? 0 : option_value<Rotary, 10'000, Options...>(), rotary, biases>>;
};

}  // namespace detail

/// Causal attention. Options: Heads<H> and Context<N> (must be given), KeyValueHeads<H>, HeadWidth<width / H>,
/// Rotary<10000>, RotaryWidth<HeadWidth> (or NoPositions), InputBiases or Biases (none). Context is how many of the last
/// positions a step sees, its own included, and what the running state holds.
template <class... Options>
struct Attention {
  static_assert(detail::check_attention<Attention, Options...>());

  template <int W>
  using Layer = typename detail::AttentionOf<Attention, W, Options...>::type;
};

}  // namespace moe_mamba
