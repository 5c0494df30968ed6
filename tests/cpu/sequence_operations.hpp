#pragma once

#include "cpu/attention_problem.hpp"
#include "cpu/column_operations.hpp"
#include "cpu/selective_scan_problem.hpp"
#include "moe_mamba/cpu/attention_backward.hpp"
#include "moe_mamba/cpu/causal_convolution.hpp"
#include "moe_mamba/cpu/cross_entropy.hpp"
#include "moe_mamba/cpu/rotary.hpp"
#include "moe_mamba/cpu/router.hpp"

/// Those operations of column_operations.hpp that mix the rows of a sequence or end in a softmax.
namespace test::columns {

template <class C, class Check>
void each_rotation(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  const Shape shape{1, 3};
  constexpr Index heads = 2;
  auto x = operands.matrix<C>(shape.tokens() * heads * 2, columns);
  for (const bool backward : {false, true}) {
    check(
        "rotary_embedding",
        [&] {
          rotary_embedding(device,
                           RotaryEmbedding<C>{.shape = shape,
                                              .x = moe_mamba::matrix(x.data(), shape.tokens(), heads * 2 * columns),
                                              .head_width = 2 * columns,
                                              .rotary_width = 2 * columns,
                                              .base = 1,  // all pairs rotate by the same angle
                                              .positions = {},
                                              .backward = backward});
        },
        Result{x, columns});
  }
}

template <class S, class Check>
void each_convolution(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  using C = compute_t<S>;
  constexpr int taps = 4;
  const Shape shape{1, 9};
  const Index t = shape.tokens();
  const auto x = operands.matrix<C>(t, columns, 30), dy = operands.matrix<C>(t, columns);
  const auto weight = operands.transposed<S>(taps, columns), bias = operands.matrix<S>(1, columns);
  auto state = operands.matrix<C>(taps - 1, columns), dstate = operands.matrix<C>(taps - 1, columns);
  auto saved = state, y = x, dx = x, dweight = operands.transposed<C>(taps, columns);
  auto dbias = operands.matrix<C>(1, columns);
  const auto input = moe_mamba::matrix(x.data(), t, columns);
  const Index room = (taps - 1) * columns;
  check(
      "causal_convolution",
      [&] {
        causal_convolution(device, CausalConvolution<C, S, taps>{shape, input, weight.data(), bias.data(),
                                                                 StateView<C>{state.data(), room}, saved.data(),
                                                                 moe_mamba::matrix(y.data(), t, columns)});
      },
      Result{y, columns}, Result{state, columns}, Result{saved, columns});
  check(
      "causal_convolution_backward",
      [&] {
        causal_convolution_backward(
            device, CausalConvolutionBackward<C, S, taps>{shape, input, weight.data(), bias.data(), saved.data(),
                                                          moe_mamba::matrix(dy.data(), t, columns),
                                                          moe_mamba::matrix(dx.data(), t, columns), dweight.data(),
                                                          dbias.data(), StateView<C>{dstate.data(), room}});
      },
      Result{dx, columns}, Result<C>{dweight, columns, true}, Result{dbias, columns}, Result{dstate, columns});
}

template <class S, class Check>
void each_scan(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  using C = compute_t<S>;
  constexpr int states = 3;
  scan::Problem<C, S, states> problem({1, 35}, columns, 1);
  const Index t = problem.shape.tokens();
  problem.u = operands.matrix<C>(t, problem.stride);
  problem.delta = operands.matrix<C>(t, problem.stride, 30);
  problem.z = operands.matrix<C>(t, problem.stride, 30);
  problem.dy = operands.matrix<C>(t, problem.stride);
  problem.b = operands.matrix<C>(t * (states + 2), 1);
  problem.c = operands.matrix<C>(t * (states + 2), 1);
  problem.bias = operands.matrix<S>(1, columns), problem.dbias = operands.matrix<C>(1, columns);
  problem.a_log = operands.transposed<S>(states, columns), problem.da_log = operands.transposed<C>(states, columns);
  problem.d = operands.matrix<S>(1, columns), problem.dd = operands.matrix<C>(1, columns);
  problem.state = operands.matrix<C>(states, columns), problem.dstate = operands.matrix<C>(states, columns);
  problem.state_stride = states * columns;
  scan::Outputs<C> out;
  scan::Gradients<C> g;
  check(
      "selective_scan", [&] { out = problem.forward(device); }, Result{out.y, columns}, Result{out.state, columns},
      Result{out.checkpoints, columns});
  check(
      "selective_scan_backward", [&] { g = problem.backward(device, out.checkpoints); }, Result{g.du, columns},
      Result{g.ddelta, columns}, Result{g.dz, columns}, Result{g.dbias, columns}, Result<C>{g.da_log, columns, true},
      Result{g.dd, columns}, Result{g.dstate, columns});
}

/// The columns are those of a head. `gradient` bounds the gradient of the result.
template <class C, int columns, class Check>
void each_attention(cpu::Device& device, Operands& operands, Index read, double gradient, const Check& check) {
  attention::Problem<C, columns> problem({1, 21}, {2, 1, 9}, read, 1);
  const Index t = problem.shape.tokens();
  problem.q = operands.matrix<C>(t, problem.q_columns + 3, 30);
  problem.k = operands.matrix<C>(t, problem.k_columns + 3, 30);
  problem.v = operands.matrix<C>(t, problem.k_columns + 3, 30);
  problem.dy = operands.matrix<C>(t * 2, columns, gradient);
  const auto cache = operands.matrix<C>(2 * problem.heads.context, columns), dcache = cache;
  std::copy(cache.begin(), cache.end(), problem.state.begin());
  std::copy(dcache.begin(), dcache.end(), problem.dstate.begin());
  attention::Outputs<C> out;
  attention::Gradients<C> g;
  std::vector<C> state, dstate;
  check(
      "causal_attention",
      [&] {
        out = problem.forward(device);
        state.assign(out.state.begin(), out.state.begin() + std::ssize(cache));
      },
      Result{out.y, columns}, Result{state, columns});
  check(
      "causal_attention_backward",
      [&] {
        g = problem.backward(device, out);
        dstate.assign(g.dstate.begin(), g.dstate.begin() + std::ssize(dcache));
      },
      Result{g.dq, columns}, Result{g.dk, columns}, Result{g.dv, columns}, Result{dstate, columns});
}

/// The columns are experts. Of equal ones the first are chosen.
template <class C, int columns, class Check>
void each_routing(cpu::Device& device, Operands& operands, double limit, const Check& check) {
  constexpr Index tokens = 5, chosen = 2;
  const auto logits = operands.matrix<C>(tokens, columns, limit), dgates = operands.matrix<C>(tokens * chosen, 1);
  auto probabilities = logits, dlogits = logits;
  std::vector<C> log_sum_exp(tokens), gates(tokens * chosen);
  std::vector<Index> experts(tokens * chosen);
  std::vector<double> load(columns), probability(columns);
  double entropy = 0, square = 0, counted = 0;
  for (const GateOrder order :
       {GateOrder::softmax_then_top_k, GateOrder::top_k_then_softmax, GateOrder::sigmoid_then_top_k}) {
    check(
        "route",
        [&] {
          route(device, Router<C, columns, chosen>{order, moe_mamba::matrix(logits.data(), tokens, columns),
                                                   moe_mamba::matrix(probabilities.data(), tokens, columns),
                                                   log_sum_exp.data(), experts.data(), gates.data(), load.data(),
                                                   probability.data(), &entropy, &square, &counted});
        },
        Result{probabilities, columns});
    check(
        "router_backward",
        [&] {
          router_backward(device, RouterBackward<C, columns, chosen>{
                                      order, moe_mamba::matrix<const C>(probabilities.data(), tokens, columns),
                                      log_sum_exp.data(), experts.data(), gates.data(), load.data(), dgates.data(), 0.7,
                                      0.3, moe_mamba::matrix(dlogits.data(), tokens, columns), &counted});
        },
        Result<C>{dlogits, columns, false, chosen});
  }
}

/// The columns are first those of the rows, then tokens of the vocabulary, the first of which is the target.
template <class S, class Check>
void each_cross_entropy(cpu::Device& device, Operands& operands, Index columns, double limit, const Check& check) {
  using C = compute_t<S>;
  constexpr Index tokens = 5, other = 6;
  const std::vector<Token> targets = {0, masked_target, 0, 0, masked_target};
  double totals[2];
  const auto run = [&](const std::vector<C>& x, const std::vector<S>& weight, Index width, Index vocabulary,
                       std::vector<C>& dx, std::vector<C>& dweight) {
    const std::size_t bytes = head_cross_entropy_scratch<C>(device, tokens, vocabulary, width);
    std::vector<attention::CacheLine> scratch(bytes / sizeof(attention::CacheLine) + 1);
    head_cross_entropy(device, HeadCrossEntropy<C, S>{moe_mamba::matrix(x.data(), tokens, width),
                                                      moe_mamba::matrix(weight.data(), vocabulary, width),
                                                      targets.data(), moe_mamba::matrix(dx.data(), tokens, width),
                                                      moe_mamba::matrix(dweight.data(), vocabulary, width), totals,
                                                      Arena(scratch.front().bytes)});
  };
  const auto x = operands.matrix<C>(tokens, columns, limit);
  const auto weight = operands.matrix<S>(other, columns);
  auto dx = x, dweight = operands.matrix<C>(other, columns);
  check(
      "head_cross_entropy, columns", [&] { run(x, weight, columns, other, dx, dweight); }, Result{dx, columns},
      Result{dweight, columns});
  const auto y = operands.matrix<C>(tokens, other, limit);
  const auto tokens_weight = operands.transposed<S>(other, columns);
  auto dy = y, dtokens = operands.transposed<C>(other, columns);
  check(
      "head_cross_entropy, tokens", [&] { run(y, tokens_weight, other, columns, dy, dtokens); },
      Result<C>{dtokens, columns, true, 1});
}

}  // namespace test::columns
