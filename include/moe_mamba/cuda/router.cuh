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

/// Routing of tokens to experts on a CUDA device; the contract is in ops/router.hpp. For a token with logits x and
/// probabilities p:
///
///   largest = max_e x_e    total = Σ_e exp(x_e - largest)    p_e = exp(x_e - largest) / total
///   log_sum_exp = largest + log(total)                        entropy = log(total) - Σ_e p_e (x_e - largest)
///   dx_e = p_e (dp_e - Σ_j dp_j p_j + z log_sum_exp)
///
/// where dp is the gradient from the balance loss and, if they are probabilities, from the gates; other gates add their
/// gradients with respect to the chosen logits. A warp takes a token, or several if there are
/// few experts: a token's lanes share the experts for the softmax, in the compute type, and then choose the K experts one
/// after the other by reductions. Each warp sums its tokens' statistics in double; the block adds up its warps', and
/// router_statistics_kernel the blocks'.
namespace moe_mamba::inline v0_2::cuda {

namespace detail {

/// The lanes of a warp that share a token: as many as there are experts, rounded up to a power of two, or all.
template <int Experts>
struct Team {
  static constexpr int size = [] {
    int lanes = 1;
    while (lanes < Experts && lanes < warp_size) lanes *= 2;
    return lanes;
  }();
  static constexpr int count = warp_size / size;

  __device__ static int number() { return lane_index() / size; }
  __device__ static int lane() { return lane_index() % size; }
};

/// Of Experts numbers value(0), …, the one that follows `previous` in the order of choice (the first of all if
/// previous.index is -1), in all threads of the team. A thread evaluates every Team::size-th of them.
template <int Experts, class C, class Value>
__device__ inline Choice<C> next_choice(const Value& value, Choice<C> previous) {
  Choice<C> best{0, Experts};
  for (int e = Team<Experts>::lane(); e < Experts; e += Team<Experts>::size) {
    const Choice<C> candidate{order_key(value(e)), e};
    if ((previous.index < 0 || previous.before(candidate)) && candidate.before(best)) best = candidate;
  }
  return warp_first<Team<Experts>::size>(best);
}

/// Gates of the chosen experts that add up to one: a softmax over the chosen logits, or their sigmoids divided by the
/// sum of these. Logits are shifted by the largest chosen one, as a bias may choose only improbable experts. `doubt` is
/// 0 or NaN.
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

/// The most experts whose loads a block counts in shared memory; with more, atomic additions in device memory rarely
/// collide.
inline constexpr int most_shared_loads = 2048;

template <int threads, class C, int Experts, int TopK, class B>
__global__ void __launch_bounds__(threads) route_kernel(Router<C, Experts, TopK, B> router, Index tokens_per_block,
                                                        unsigned long long* loads, RouterSums* sums) {
  await_stream();
  release_stream();
  using Team = Team<Experts>;
  constexpr int warps = threads / warp_size;
  constexpr bool shared_loads = Experts <= most_shared_loads;
  // A probability below exp(-700) (double) or exp(-80) (float) adds nothing to the entropy, not even 0 · infinity.
  constexpr C least = sizeof(C) == 8 ? C(-700) : C(-80);
  __shared__ unsigned shared_load[shared_loads ? Experts : 1];
  const int lane = Team::lane();
  const C scale = gate_factor(router);
  if constexpr (shared_loads) {
    for (int e = int(threadIdx.x); e < Experts; e += threads) shared_load[e] = 0;
    __syncthreads();
  }

  double entropy = 0, square = 0, tokens_that_count = 0;
  const Index first = Index(blockIdx.x) * tokens_per_block, last = min(first + tokens_per_block, router.logits.rows);
  for (Index first_of_warp = first + warp_index(); first_of_warp < last; first_of_warp += warps * Team::count) {
    // Teams without a token do as the first one does, but leave no trace.
    const bool present = first_of_warp + Team::number() * warps < last;
    const Index t = present ? first_of_warp + Team::number() * warps : first_of_warp;
    const C* logits = router.logits.row(t);
    C* probabilities = router.probabilities.row(t);
    const auto logit_of = [&](int e) { return logits[e]; };
    Choice<C> choice = next_choice<Experts>(logit_of, Choice<C>{0, -1});
    const C largest = logits[choice.index];
    C total = 0;
    for (int e = lane; e < Experts; e += Team::size) total += exp(logits[e] - largest);
    total = warp_sum<Team::size>(total);
    C mean_exponent = 0;
    for (int e = lane; e < Experts; e += Team::size) {
      const C exponent = logits[e] - largest, p = exp(exponent) / total;
      if (present) probabilities[e] = p;
      mean_exponent += p * max(exponent, least);
    }
    mean_exponent = warp_sum<Team::size>(mean_exponent);
    const double log_total = log(double(total)), log_sum_exp = double(largest) + log_total;
    const bool counted = present && counts(router.targets, t);
    const double own_entropy = counted ? log_total - double(mean_exponent) : 0.0,
                 own_square = counted ? log_sum_exp * log_sum_exp : 0.0;
    // Token after token, whatever the number of teams.
    for (int team = 0; team < Team::count; ++team) {
      entropy += __shfl_sync(full_mask, own_entropy, team * Team::size);
      square += __shfl_sync(full_mask, own_square, team * Team::size);
    }
    tokens_that_count += __popc(__ballot_sync(full_mask, counted && lane == 0));

    // Without a bias, experts are chosen by logit rather than by probability: the order is the same, but rounding
    // creates no ties. A thread reads only those probabilities that it has written itself.
    const bool is_biased = router.selection_bias != nullptr;
    const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;
    const auto biased_score_of = [&](int e) {
      return (of_sigmoids ? sigmoid(logits[e]) : probabilities[e]) + static_cast<C>(router.selection_bias[e]);
    };
    if (is_biased) choice = next_choice<Experts>(biased_score_of, Choice<C>{0, -1});
    C chosen = 0;
    for (int k = 0; k < TopK; ++k) {
      if (k > 0) {
        choice = is_biased ? next_choice<Experts>(biased_score_of, choice) : next_choice<Experts>(logit_of, choice);
      }
      const C logit = logits[choice.index];
      // total - total is 0, or NaN if any of the token's logits is, which a sigmoid of one logit would not show.
      const C gate = of_sigmoids ? sigmoid(logit) + (total - total) : exp(logit - largest) / total;
      chosen += gate;
      if (lane != 0 || !present) continue;
      router.experts[t * TopK + k] = choice.index;
      router.gates[t * TopK + k] = gate;
      if (!counted) continue;
      if constexpr (shared_loads) {
        atomicAdd(&shared_load[choice.index], 1u);
      } else {
        atomicAdd(&loads[choice.index], 1ull);
      }
    }
    if (lane != 0 || !present) continue;
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

  // All threads of a warp hold the same sums, so only lane 0 contributes.
  entropy = block_sum<threads>(lane_index() == 0 ? entropy : 0.0);
  square = block_sum<threads>(lane_index() == 0 ? square : 0.0);
  tokens_that_count = block_sum<threads>(lane_index() == 0 ? tokens_that_count : 0.0);
  if (threadIdx.x == 0) sums[blockIdx.x] = {entropy, square, tokens_that_count};
  if constexpr (shared_loads) {
    // block_sum is a barrier. Integer counts do not depend on the order of additions.
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
  using Team = Team<Experts>;
  constexpr int tokens_of_block = threads / Team::size;
  const int lane = Team::lane();
  const Index tokens = router.probabilities.rows, step = Index(gridDim.x) * tokens_of_block;
  const Index first = Index(blockIdx.x) * tokens_of_block + warp_index() * Team::count;
  for (Index first_of_warp = first; first_of_warp < tokens; first_of_warp += step) {
    // Teams without a token do as the last one does, but leave no trace.
    const bool present = first_of_warp + Team::number() < tokens;
    const Index t = present ? first_of_warp + Team::number() : tokens - 1;
    const bool counted = counts(router.targets, t);
    const double balance = counted ? balance_of_counted : 0.0;
    const C z = counted ? z_of_counted : C(0);
    const C* p = router.probabilities.row(t);
    const Index* experts = router.experts + t * TopK;
    const C* gates = router.gates + t * TopK;
    const C* dgates = router.dgates + t * TopK;
    const bool of_probabilities = router.order == GateOrder::softmax_then_top_k;
    const bool of_sigmoids = router.order == GateOrder::sigmoid_then_top_k;

    // The gradient with respect to each probability: from the balance loss, and from the gates if they are
    // probabilities.
    const auto dp = [&](int e) {
      C sum = static_cast<C>(balance * router.load[e]);
      if (of_probabilities) {
        for (int k = 0; k < TopK; ++k) sum += experts[k] == e ? scale * dgates[k] : C(0);
      }
      return sum;
    };
    C dot = 0;
    for (int e = lane; e < Experts; e += Team::size) dot += dp(e) * p[e];
    dot = warp_sum<Team::size>(dot);
    C gate_dot = 0;
    const bool divided = !of_probabilities && (!of_sigmoids || router.normalised);
    if (divided) {
      for (int k = 0; k < TopK; ++k) gate_dot += gates[k] * dgates[k];
      gate_dot *= unscale;
    }
    const C shift = z * router.log_sum_exp[t] - dot;
    for (int e = lane; e < Experts; e += Team::size) {
      C gradient = p[e] * (dp(e) + shift);
      if (!of_probabilities) {
        for (int k = 0; k < TopK; ++k) {
          C slope = divided ? dgates[k] - gate_dot : dgates[k];
          if (of_sigmoids) slope *= C(1) - (divided ? router.sigmoids[t * TopK + k] : unscale * gates[k]);
          gradient += experts[k] == e ? gates[k] * slope : C(0);
        }
      }
      if (present) router.dlogits(t, e) = gradient;
    }
  }
}

/// One block per router.
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

/// The gradient with respect to the logits, from that of the gates and from the auxiliary losses.
template <ComputeScalar C, int Experts, int TopK>
void router_backward(Device& device, const RouterBackward<C, Experts, TopK>& router) {
  constexpr int threads = 128;
  const Index tokens = router.probabilities.rows;
  if (tokens == 0) return;
  const Index blocks = ceiling_divide<Index>(tokens, threads / detail::Team<Experts>::size);
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
