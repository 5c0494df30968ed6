#pragma once

#include "moe_mamba/core/arena.hpp"
#include "moe_mamba/core/mathematics.hpp"
#include "moe_mamba/cuda/common/launch.cuh"
#include "moe_mamba/cuda/common/order_key.cuh"
#include "moe_mamba/cuda/common/reduce.cuh"
#include "moe_mamba/cuda/common/sums.cuh"
#include "moe_mamba/cuda/common/thread.cuh"
#include "moe_mamba/cuda/device.hpp"
#include "moe_mamba/ops/router.hpp"

/// Routing of tokens to experts on a CUDA device; the contract is in ops/router.hpp. A warp takes a token: its softmax
/// runs in the compute type, the statistics over tokens in double.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// The first of `count` numbers value(0), … in the order of choice that follows `previous` (the first of all where its index
/// is -1), known to the whole warp. A thread asks for every warp_size-th of them.
template <class C, class Value>
__device__ inline Choice<C> next_choice(const Value& value, int count, Choice<C> previous) {
  Choice<C> best{0, count};
  for (int e = lane_index(); e < count; e += warp_size) {
    const Choice<C> candidate{order_key(value(e)), e};
    if ((previous.index < 0 || previous.before(candidate)) && candidate.before(best)) best = candidate;
  }
  return warp_first(best);
}

/// Makes the gates of the chosen experts, whose sum is 1: a softmax over the chosen logits, or their sigmoids divided by the
/// sum of these. They are shifted by the largest, as a bias may choose experts of which all are improbable. `doubt` is 0 or
/// NaN.
template <class C, int TopK>
__device__ inline void share_gates(const C* logits, const Index* chosen, bool of_sigmoids, C doubt, C* gates) {
  C largest = logits[chosen[0]], sum = 0;
  for (int k = 1; k < TopK; ++k) largest = max(largest, logits[chosen[k]]);
  const C shift = of_sigmoids ? min(largest, C(0)) : largest;
  for (int k = 0; k < TopK; ++k) {
    const C logit = logits[chosen[k]];
    gates[k] = of_sigmoids ? shifted_sigmoid(logit, shift) : exp(logit - shift);
    sum += gates[k];
  }
  for (int k = 0; k < TopK; ++k) gates[k] = gates[k] / sum + doubt;
}

/// Sums of a block's tokens.
struct RouterSums {
  double entropy, square_log_sum_exp, counted;
};

/// Experts whose loads a block counts in shared memory; more of them are rarely met by one address at a time.
inline constexpr int most_shared_loads = 2048;

template <int threads, class C, int Experts, int TopK, class B>
__global__ void __launch_bounds__(threads) route_kernel(Router<C, Experts, TopK, B> router, Index tokens_per_block,
                                                        unsigned long long* loads, RouterSums* sums) {
  await_stream();
  release_stream();
  constexpr int warps = threads / warp_size;
  constexpr bool shared_loads = Experts <= most_shared_loads;
  // A probability below exp(-700) (double) or exp(-80) (float) adds nothing to the entropy, not even 0 · infinity.
  constexpr C least = sizeof(C) == 8 ? C(-700) : C(-80);
  __shared__ unsigned shared_load[shared_loads ? Experts : 1];
  const int lane = lane_index();
  const C scale = gate_factor(router);
  if constexpr (shared_loads) {
    for (int e = int(threadIdx.x); e < Experts; e += threads) shared_load[e] = 0;
    __syncthreads();
  }

  double entropy = 0, square = 0, tokens_that_count = 0;
  const Index first = Index(blockIdx.x) * tokens_per_block, last = min(first + tokens_per_block, router.logits.rows);
  for (Index t = first + warp_index(); t < last; t += warps) {
    const C* logits = router.logits.row(t);
    C* probabilities = router.probabilities.row(t);
    const auto logit_of = [&](int e) { return logits[e]; };
    Choice<C> choice = next_choice(logit_of, Experts, Choice<C>{0, -1});
    const C largest = logits[choice.index];
    C total = 0;
    for (int e = lane; e < Experts; e += warp_size) total += exp(logits[e] - largest);
    total = warp_sum(total);
    C mean_exponent = 0;
    for (int e = lane; e < Experts; e += warp_size) {
      const C exponent = logits[e] - largest, p = exp(exponent) / total;
      probabilities[e] = p;
      mean_exponent += p * max(exponent, least);
    }
    mean_exponent = warp_sum(mean_exponent);
    const double log_total = log(double(total)), log_sum_exp = double(largest) + log_total;
    const bool counted = counts(router.targets, t);
    if (counted) {
      tokens_that_count += 1;
      entropy += log_total - double(mean_exponent);
      square += log_sum_exp * log_sum_exp;
    }

    // Without a bias, the larger logit has the larger probability; logits tie exactly where probabilities do, without their
    // rounding. Of the probabilities, a thread reads those that it has written.
    const bool is_biased = router.selection_bias != nullptr;
    const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;
    const auto biased_score_of = [&](int e) {
      return (of_sigmoids ? sigmoid(logits[e]) : probabilities[e]) + static_cast<C>(router.selection_bias[e]);
    };
    if (is_biased) choice = next_choice(biased_score_of, Experts, Choice<C>{0, -1});
    C chosen = 0;
    for (int k = 0; k < TopK; ++k) {
      if (k > 0) {
        choice = is_biased ? next_choice(biased_score_of, Experts, choice) : next_choice(logit_of, Experts, choice);
      }
      const C logit = logits[choice.index];
      // A NaN among the others shows in a sigmoid as well: total - total is 0 or NaN.
      const C gate = of_sigmoids ? sigmoid(logit) + (total - total) : exp(logit - largest) / total;
      chosen += gate;
      if (lane != 0) continue;
      router.experts[t * TopK + k] = choice.index;
      router.gates[t * TopK + k] = gate;
      if (!counted) continue;
      if constexpr (shared_loads) {
        atomicAdd(&shared_load[choice.index], 1u);
      } else {
        atomicAdd(&loads[choice.index], 1ull);
      }
    }
    if (lane != 0) continue;
    router.log_sum_exp[t] = static_cast<C>(log_sum_exp);
    const Index* experts = router.experts + t * TopK;
    C* gates = router.gates + t * TopK;
    if (of_sigmoids && router.normalised) {
      for (int k = 0; k < TopK; ++k) router.sigmoids[t * TopK + k] = gates[k];
      share_gates<C, TopK>(logits, experts, true, total - total, gates);
    } else if (router.order == GateOrder::top_k_then_softmax && is_biased) {
      share_gates<C, TopK>(logits, experts, false, total - total, gates);
    } else if (router.order == GateOrder::top_k_then_softmax) {
      for (int k = 0; k < TopK; ++k) gates[k] /= chosen;
    }
    for (int k = 0; k < TopK; ++k) gates[k] *= scale;
  }

  // Every thread of a warp has the warp's sums.
  entropy = block_sum<threads>(lane == 0 ? entropy : 0.0);
  square = block_sum<threads>(lane == 0 ? square : 0.0);
  tokens_that_count = block_sum<threads>(lane == 0 ? tokens_that_count : 0.0);
  if (threadIdx.x == 0) sums[blockIdx.x] = {entropy, square, tokens_that_count};
  if constexpr (shared_loads) {
    // block_sum has waited for all. Counts of whole numbers are the same in any order.
    for (int e = int(threadIdx.x); e < Experts; e += threads) {
      if (shared_load[e] > 0) atomicAdd(&loads[e], static_cast<unsigned long long>(shared_load[e]));
    }
  }
}

template <class C>
struct ProbabilityColumn {
  MatrixView<const C> probabilities;
  const Token* targets;
  __device__ void operator()(Index t, Index e, double (&sums)[1]) const {
    if (counts(targets, t)) sums[0] += double(probabilities(t, e));
  }
};

struct StoreColumn {
  double* to;
  __device__ void operator()(Index column, const double (&sums)[1]) const { to[column] = sums[0]; }
};

template <int threads, class C, int Experts, int TopK, class B>
__global__ void __launch_bounds__(threads)
    router_statistics_kernel(Router<C, Experts, TopK, B> router, const unsigned long long* loads,
                             const RouterSums* sums, int blocks) {
  await_stream();
  release_stream();
  double entropy = 0, square = 0, counted = 0;
  for (int e = int(threadIdx.x); e < Experts; e += threads) router.load[e] = double(loads[e]);
  for (int block = int(threadIdx.x); block < blocks; block += threads) {
    counted += sums[block].counted;
    entropy += sums[block].entropy;
    square += sums[block].square_log_sum_exp;
  }
  counted = block_sum<threads>(counted);
  entropy = block_sum<threads>(entropy);
  square = block_sum<threads>(square);
  if (threadIdx.x != 0) return;
  *router.counted = counted;
  *router.entropy = entropy;
  *router.square_log_sum_exp = square;
}

template <int threads, class C, int Experts, int TopK>
__global__ void __launch_bounds__(threads) router_backward_kernel(RouterBackward<C, Experts, TopK> router) {
  await_stream();
  release_stream();
  const double divisor = *router.counted > 1 ? *router.counted : 1.0;
  const double balance_of_counted = router.balance * Experts / (divisor * TopK) / divisor;
  const C z_of_counted = static_cast<C>(2 * router.z / divisor);
  const C scale = static_cast<C>(router.scale), unscale = static_cast<C>(1 / router.scale);
  const int lane = lane_index();
  const Index tokens = router.probabilities.rows, step = Index(gridDim.x) * (threads / warp_size);
  for (Index t = (Index(blockIdx.x) * threads + threadIdx.x) / warp_size; t < tokens; t += step) {
    const bool counted = counts(router.targets, t);
    const double balance = counted ? balance_of_counted : 0.0;
    const C z = counted ? z_of_counted : C(0);
    const C* p = router.probabilities.row(t);
    const Index* experts = router.experts + t * TopK;
    const C* gates = router.gates + t * TopK;
    const C* dgates = router.dgates + t * TopK;
    const bool of_probabilities = router.order == GateOrder::softmax_then_top_k;
    const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;

    // The gradient with respect to each probability: from the balance loss, and from the gates where they are
    // probabilities.
    const auto dp = [&](int e) {
      C sum = static_cast<C>(balance * router.load[e]);
      if (of_probabilities) {
        for (int k = 0; k < TopK; ++k) sum += experts[k] == e ? scale * dgates[k] : C(0);
      }
      return sum;
    };
    C dot = 0;
    for (int e = lane; e < Experts; e += warp_size) dot += dp(e) * p[e];
    dot = warp_sum(dot);
    C gate_dot = 0;
    const bool divided = !of_probabilities && (!of_sigmoids || router.normalised);
    if (divided) {
      for (int k = 0; k < TopK; ++k) gate_dot += gates[k] * dgates[k];
      gate_dot *= unscale;
    }
    const C shift = z * router.log_sum_exp[t] - dot;
    for (int e = lane; e < Experts; e += warp_size) {
      C gradient = p[e] * (dp(e) + shift);
      if (!of_probabilities) {
        for (int k = 0; k < TopK; ++k) {
          C slope = divided ? dgates[k] - gate_dot : dgates[k];
          if (of_sigmoids) slope *= C(1) - (divided ? router.sigmoids[t * TopK + k] : unscale * gates[k]);
          gradient += experts[k] == e ? gates[k] * slope : C(0);
        }
      }
      router.dlogits(t, e) = gradient;
    }
  }
}

/// A block for each router.
template <int threads, class S>
__global__ void __launch_bounds__(threads) selection_bias_kernel(SelectionBiasUpdate<S> update) {
  await_stream();
  release_stream();
  if (is_skipped(update)) return;
  const SelectionBiasPlace place = update.places[blockIdx.x];
  double total = 0;
  for (int e = int(threadIdx.x); e < place.experts; e += threads) total += update.report[place.load + e];
  total = block_sum<threads>(total);
  for (int e = int(threadIdx.x); e < place.experts; e += threads) update_selection_bias(update, place, e, total);
}

}  // namespace detail

/// Probabilities, chosen experts, gates and statistics. With a NaN among a token's logits its choice is arbitrary, but
/// within range and without repetition.
template <ComputeScalar C, int Experts, int TopK, class B>
void route(Device& device, const Router<C, Experts, TopK, B>& router) {
  static_assert(1 <= TopK && TopK <= Experts, "a router chooses 1 to Experts experts for each token");
  constexpr int threads = 256, most_blocks = 1024;
  const Index tokens = router.logits.rows;
  Arena arena(device.scratch());
  auto* const loads = arena.take<unsigned long long>(Experts);
  auto* const sums = arena.take<detail::RouterSums>(most_blocks);

  check(cudaMemsetAsync(loads, 0, sizeof(*loads) * Experts, device.stream()), "cudaMemsetAsync");
  const Index tokens_per_block = std::max<Index>(16, ceiling_divide<Index>(tokens, most_blocks));
  const int blocks = int(ceiling_divide(tokens, tokens_per_block));
  if (blocks > 0) {
    detail::launch_dependent(device, detail::route_kernel<threads, C, Experts, TopK, B>, unsigned(blocks), threads, 0,
                             router, tokens_per_block, loads, sums);
  }
  detail::sum_columns<1>(device, tokens, Index{Experts},
                         detail::ProbabilityColumn<C>{router.probabilities, router.targets},
                         detail::StoreColumn{router.probability}, arena);
  detail::launch_dependent(device, detail::router_statistics_kernel<threads, C, Experts, TopK, B>, 1, threads, 0,
                           router, loads, sums, blocks);
}

/// The gradient of the logits from that of the gates and from the auxiliary losses.
template <ComputeScalar C, int Experts, int TopK>
void router_backward(Device& device, const RouterBackward<C, Experts, TopK>& router) {
  constexpr int threads = 128;
  const Index tokens = router.probabilities.rows;
  if (tokens == 0) return;
  const Index blocks = ceiling_divide<Index>(tokens, threads / detail::warp_size);
  detail::launch_dependent(device, detail::router_backward_kernel<threads, C, Experts, TopK>,
                           unsigned(std::min(blocks, Index{1} << 30)), threads, 0, router);
}

/// Moves selection biases against their experts' loads.
template <StorageScalar S>
void update_selection_biases(Device& device, const SelectionBiasUpdate<S>& update) {
  constexpr int threads = 256;
  if (update.count == 0) return;
  detail::launch_dependent(device, detail::selection_bias_kernel<threads, S>, unsigned(update.count), threads, 0,
                           update);
}

}  // namespace moe_mamba::inline v0_2::cuda
