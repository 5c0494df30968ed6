#pragma once

#include <array>

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

  static constexpr auto parameters = [] {
    constexpr Initial input{Initial::Law::uniform, 1, D}, output{Initial::Law::uniform, 1, q_size, true};
    // Those of the three input projections lie side by side: they are one matrix and one bias.
    std::array<Parameter, std::size_t{4} + (input_biases ? 3 : 0) + (output_bias ? 1 : 0)> all{
        matrix_parameter("q_proj.weight", q_size, D, input), matrix_parameter("k_proj.weight", k_size, D, input),
        matrix_parameter("v_proj.weight", k_size, D, input), matrix_parameter("o_proj.weight", D, q_size, output)};
    if constexpr (input_biases) {
      all[4] = vector_parameter("q_proj.bias", q_size, ParameterKind::bias, {});
      all[5] = vector_parameter("k_proj.bias", k_size, ParameterKind::bias, {});
      all[6] = vector_parameter("v_proj.bias", k_size, ParameterKind::bias, {});
    }
    if constexpr (output_bias) all[7] = vector_parameter("o_proj.bias", D, ParameterKind::bias, {});
    return lay_out(all);
  }();
  static constexpr Index input_weight = offset_of(parameters, "q_proj.weight");
  static constexpr Index output_weight = offset_of(parameters, "o_proj.weight");
  static constexpr Index input_bias_at = output_weight + Index{D} * q_size, output_bias_at = input_bias_at + size;

  static constexpr Index active_parameters = total_size(parameters);
  static constexpr bool takes_packed = true;
  static constexpr Index state_size = AttentionCache<d>(heads).size();

  /// The four products, and two products of d a head with each row that a step sees, where that sees a whole window.
  static constexpr double flops_per_token =
      2.0 * D * (size + q_size) + 4.0 * q_size * static_cast<double>(heads.context);

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) {
      const Index tokens = shape.tokens();
      qkv = matrix(arena.take<C>(tokens * size), tokens, Index{size});
      mixed = matrix(arena.take<C>(tokens * q_size), tokens, Index{q_size});
      log_sums = arena.take<compute_t<C>>(tokens * heads.queries);
      state = arena.take<compute_t<C>>(shape.batch * state_size);
    }
    MatrixView<C> qkv;       // (T, (H + 2G) d): queries, keys and values, rotated
    MatrixView<C> mixed;     // (T, H d): sums of values
    compute_t<C>* log_sums;  // (T, H)
    compute_t<C>* state;     // (B, state_size): what was in the initial states

    MatrixView<C> q() const { return qkv.column_block(0, q_size); }
    MatrixView<C> k() const { return qkv.column_block(q_size, k_size); }
    MatrixView<C> v() const { return qkv.column_block(q_size + k_size, k_size); }
  };

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return largest_scratch<ForwardScratch<C>, BackwardScratch<C>>(device, shape, training);
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, MatrixView<const C> x, MatrixView<C> y) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const S* p = run.parameters;
    linear(device, x, matrix(p + input_weight, size, D), saved.qkv);
    if constexpr (input_biases) add_bias(device, p + input_bias_at, saved.qkv);
    rotate(device, run.shape, saved.qkv, run.state.at(position), false);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      causal_attention(device, CausalAttention<C, d>{
                                   .shape = part.shape,
                                   .heads = heads,
                                   .q = part.rows(saved.q()),
                                   .k = part.rows(saved.k()),
                                   .v = part.rows(saved.v()),
                                   .state = run.state.from(part.sequence),
                                   .saved_state = run.training ? saved.state + part.sequence * state_size : nullptr,
                                   .y = part.rows(saved.mixed),
                                   .log_sums = run.training ? saved.log_sums + part.row * heads.queries : nullptr,
                                   .scratch = run.scratch});
    });
    linear(device, saved.mixed, matrix(p + output_weight, D, q_size), y);
    if constexpr (output_bias) add_bias(device, p + output_bias_at, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    auto& device = run.device;
    const Saved<C> saved(run.tape, run.shape);
    const BackwardScratch<C> scratch(run.scratch, device, run.shape);
    const S* p = run.parameters;
    auto* g = run.gradients;
    if constexpr (output_bias) bias_backward(device, dy, g + output_bias_at);
    linear_backward_weight<S>(device, dy, saved.mixed, matrix(g + output_weight, D, q_size));
    linear_backward_input(device, dy, matrix(p + output_weight, D, q_size), scratch.dmixed, Into::assign);
    for_sequence_runs(run.shape, [&](const SequenceRun& part) {
      const auto dqkv = part.rows(scratch.dqkv);
      causal_attention_backward(device,
                                CausalAttentionBackward<C, d>{.shape = part.shape,
                                                              .heads = heads,
                                                              .q = part.rows(saved.q()),
                                                              .k = part.rows(saved.k()),
                                                              .v = part.rows(saved.v()),
                                                              .saved_state = saved.state + part.sequence * state_size,
                                                              .y = part.rows(saved.mixed),
                                                              .log_sums = saved.log_sums + part.row * heads.queries,
                                                              .dy = part.rows(scratch.dmixed),
                                                              .dq = dqkv.column_block(0, q_size),
                                                              .dk = dqkv.column_block(q_size, k_size),
                                                              .dv = dqkv.column_block(q_size + k_size, k_size),
                                                              .dstate = run.dstate.from(part.sequence),
                                                              .scratch = scratch.attention});
    });
    rotate(device, run.shape, scratch.dqkv, StateView<const compute_t<C>>{saved.state + position, state_size}, true);
    if constexpr (input_biases) bias_backward(device, scratch.dqkv, g + input_bias_at);
    linear_backward_weight<S>(device, scratch.dqkv, x, matrix(g + input_weight, size, D));
    linear_backward_input(device, scratch.dqkv, matrix(p + input_weight, size, D), dx, Into::assign);
  }

 private:
  static constexpr Index position = AttentionCache<d>(heads).position();

  /// Memory of the attention, which goes through the runs of sequences one after the other.
  template <class C, class Device>
  static std::size_t attention_scratch(Device& device, const Shape& shape) {
    return largest_run_scratch(shape, [&](Shape part) { return causal_attention_scratch<C, d>(device, part, heads); });
  }

  template <class C>
  struct ForwardScratch {
    template <class Device>
    ForwardScratch(Arena& arena, Device& device, Shape shape) {
      arena = arena.advanced(attention_scratch<C>(device, shape));
    }
  };

  template <class C>
  struct BackwardScratch {
    template <class Device>
    BackwardScratch(Arena& arena, Device& device, Shape shape) {
      const Index tokens = shape.tokens();
      dmixed = matrix(arena.take<C>(tokens * q_size), tokens, Index{q_size});
      dqkv = matrix(arena.take<C>(tokens * size), tokens, Index{size});
      attention = arena;
      arena = arena.advanced(attention_scratch<C>(device, shape));
    }
    MatrixView<C> dmixed;  // (T, H d)
    MatrixView<C> dqkv;    // (T, (H + 2G) d)
    Arena attention;
  };

  /// Queries and keys, which lie side by side, or gradients by them.
  template <class Device, class C>
  static void rotate(Device& device, Shape shape, MatrixView<C> qkv, StateView<const compute_t<C>> positions,
                     bool backward) {
    if constexpr (Config::rotary_width > 0) {
      for_sequence_runs(shape, [&](const SequenceRun& part) {
        rotary_embedding(device, RotaryEmbedding<C>{.shape = part.shape,
                                                    .x = part.rows(qkv).column_block(0, q_size + k_size),
                                                    .head_width = d,
                                                    .rotary_width = Config::rotary_width,
                                                    .base = Config::rotary_base,
                                                    .positions = positions.from(part.sequence),
                                                    .backward = backward});
      });
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
      // Of heads that are no width of their own anyway, that would be a second sentence on one mistake.
      if constexpr (own_width || W % heads == 0)
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
