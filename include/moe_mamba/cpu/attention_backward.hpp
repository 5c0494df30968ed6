#pragma once

#include <cmath>

#include "moe_mamba/cpu/attention.hpp"

/// Causal attention on the CPU, backward; the contract is in ops/attention.hpp.
///
/// Weights are recomputed from the saved log-sum-exps, one pair of query and key blocks at a time: five products per
/// pair. If there are at least as many key-value heads as threads, a task is one head. Otherwise blocks of keys are
/// tasks, which compute dk and dv, and then blocks of queries, which compute dq, at two more products per pair. Both
/// schedules add up the same blocks in the same order, so their results are equal bit for bit.
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// The threads' blocks, and a value per row and head.
template <class C, int HeadWidth>
struct AttentionBackwardScratch {
  using Blocks = AttentionBlocks<C>;
  static constexpr Index width = padded_to_packets<C>(HeadWidth);

  AttentionBackwardScratch(Arena& arena, int threads, Shape shape, const AttentionHeads& heads) {
    rows = QueryBlocks<C>{1, heads.group()}.rows();
    thread_size = 2 * HeadWidth * Blocks::keys + 3 * Blocks::keys * width + 3 * rows * width + 2 * rows * Blocks::keys;
    blocks = arena.take<C>(threads * thread_size);
    means = arena.take<C>(shape.tokens() * heads.queries);
  }

  Index rows, thread_size;
  C* blocks;  // (threads, thread_size)
  C* means;   // (T, H): Σ_j p_j dp_j, which is y · dy

  C* transposed_keys(int thread) const { return blocks + thread * thread_size; }                         // [d, keys]
  C* transposed_values(int thread) const { return transposed_keys(thread) + HeadWidth * Blocks::keys; }  // [d, keys]
  C* keys(int thread) const { return transposed_values(thread) + HeadWidth * Blocks::keys; }  // [keys, width]
  C* dkeys(int thread) const { return keys(thread) + Blocks::keys * width; }                  // [keys, width]
  C* dvalues(int thread) const { return dkeys(thread) + Blocks::keys * width; }               // [keys, width]
  C* queries(int thread) const { return dvalues(thread) + Blocks::keys * width; }             // [rows, width]
  C* dsums(int thread) const { return queries(thread) + rows * width; }                       // [rows, width]
  C* dqueries(int thread) const { return dsums(thread) + rows * width; }                      // [rows, width]
  C* weights(int thread) const { return dqueries(thread) + rows * width; }                    // [rows, keys]
  C* dweights(int thread) const { return weights(thread) + rows * Blocks::keys; }             // [rows, keys]
};

/// The backward pass of one call.
template <class C, int HeadWidth>
class AttentionBackward {
  using Blocks = AttentionBlocks<C>;
  using P = Packet<C>;
  using Scratch = AttentionBackwardScratch<C, HeadWidth>;
  using View = SeenView<C, HeadWidth>;
  static constexpr Index width = Scratch::width;

 public:
  AttentionBackward(Device& device, const CausalAttentionBackward<C, HeadWidth>& attention)
      : device_(device),
        attention_(attention),
        heads_(attention.heads),
        cache_(attention.heads),
        query_blocks_{attention.shape.length, attention.heads.group()},
        scratch_([&] {
          Arena arena = attention.scratch;
          return Scratch(arena, device.threads(), attention.shape, attention.heads);
        }()) {}

  void run() {
    const Index tasks = attention_.shape.batch * heads_.key_values, length = attention_.shape.length;
    if (length == 0) return;
    device_.parallel(tasks, [&](Index task, int) { initialise_gradients(task); });
    const Index key_blocks = ceiling_divide(heads_.context + length, Blocks::keys);
    if (tasks >= device_.threads()) {
      device_.parallel(tasks, [&](Index task, int thread) {
        for (Index block = 0; block < key_blocks; ++block) run_key_block(task, block, true, thread);
      });
    } else {
      device_.parallel(tasks * key_blocks,
                       [&](Index task, int thread) { run_key_block(task % tasks, task / tasks, false, thread); });
      device_.parallel(tasks * query_blocks_.blocks(),
                       [&](Index task, int thread) { run_query_block(task % tasks, task / tasks, thread); });
    }
  }

 private:
  enum class Gradients { all, keys, queries };

  Index sequence_of(Index task) const { return task / heads_.key_values; }
  Index head_of(Index task) const { return task % heads_.key_values; }
  Index row_of(Index task, Index step) const { return sequence_of(task) * attention_.shape.length + step; }
  Index query_head(Index task, Index row) const { return head_of(task) * heads_.group() + row % heads_.group(); }
  const C* saved(Index task) const { return attention_.saved_state + sequence_of(task) * cache_.size(); }
  C* dstate(Index task) const { return attention_.dstate ? attention_.dstate.sequence(sequence_of(task)) : nullptr; }
  SeenRows seen_by(Index task) const { return {read_position(saved(task) + cache_.position()), heads_.context}; }
  View view(Index task, MatrixView<const C> own, Index offset) const {
    return {seen_by(task), saved(task) + offset, own.row(row_of(task, 0)) + head_of(task) * HeadWidth, own.stride};
  }

  /// Initialises the gradients that blocks accumulate into: those of a row of this call with the gradient with respect
  /// to the cache slot that it was written to, if any.
  void initialise_gradients(Index task) const {
    const Index length = attention_.shape.length, head = head_of(task);
    const SeenRows seen = seen_by(task);
    C* const slots = dstate(task);
    for (Index t = 0; t < length; ++t) {
      const auto start = [&](MatrixView<C> rows, Index offset) {
        C* const to = rows.row(row_of(task, t)) + head * HeadWidth;
        if (slots == nullptr || t < length - heads_.context) {
          std::fill_n(to, HeadWidth, C(0));
          return;
        }
        C* const slot = slots + offset + seen.slot(seen.cached + t) * HeadWidth;
        std::copy_n(slot, HeadWidth, to);
        std::fill_n(slot, HeadWidth, C(0));
      };
      start(attention_.dk, cache_.keys(head));
      start(attention_.dv, cache_.values(head));
      for (Index i = 0; i < heads_.group(); ++i) {
        const Index query = head * heads_.group() + i, row = row_of(task, t), column = query * HeadWidth;
        std::fill_n(attention_.dq.row(row) + column, HeadWidth, C(0));
        const C *y = attention_.y.row(row) + column, *dy = attention_.dy.row(row) + column;
        scratch_.means[row * heads_.queries + query] =
            sweep_sum<C>(HeadWidth, [=]<class Q>(Index k, Q sum) { return fma(load<Q>(y + k), load<Q>(dy + k), sum); });
      }
    }
    if (slots != nullptr && head == 0) write_zero(slots + cache_.position());
  }
  static void write_zero(C* position) { std::fill_n(position, position_digits, C(0)); }

  Index keys_of(Index task, Index block) const {
    return std::clamp<Index>(seen_by(task).cached + attention_.shape.length - block * Blocks::keys, 0, Blocks::keys);
  }

  void load_keys(Index task, Index block, Index count, int thread) const {
    const View k = view(task, attention_.k, cache_.keys(head_of(task)));
    const View v = view(task, attention_.v, cache_.values(head_of(task)));
    copy_transposed(k, block * Blocks::keys, count, scratch_.transposed_keys(thread));
    copy_transposed(v, block * Blocks::keys, count, scratch_.transposed_values(thread));
    copy_rows(k, block * Blocks::keys, count, scratch_.keys(thread));
  }

  /// dk and dv of a block and, if `with_queries`, its contribution to dq.
  void run_key_block(Index task, Index block, bool with_queries, int thread) const {
    const Index count = keys_of(task, block);
    if (count == 0) return;
    const SeenRows seen = seen_by(task);
    load_keys(task, block, count, thread);
    std::fill_n(scratch_.dkeys(thread), count * width, C(0));
    std::fill_n(scratch_.dvalues(thread), count * width, C(0));
    // Row j is seen by the steps from j - cached up to j - cached + N - 1.
    const Index first = block * Blocks::keys - seen.cached, last = first + count - 1 + heads_.context;
    const Index end = ceiling_divide(std::min(attention_.shape.length, last), query_blocks_.steps());
    for (Index queries = std::max<Index>(0, first) / query_blocks_.steps(); queries < end; ++queries) {
      run_pair(task, block, count, query_blocks_.block(queries), with_queries ? Gradients::all : Gradients::keys,
               thread);
    }
    add_key_gradients(task, block, count, thread);
  }

  void run_query_block(Index task, Index index, int thread) const {
    const SeenRows seen = seen_by(task);
    const QueryBlock queries = query_blocks_.block(index);
    const Index end = ceiling_divide(seen.last(queries.last_step()), Blocks::keys);
    for (Index block = seen.first(queries.step) / Blocks::keys; block < end; ++block) {
      const Index count = keys_of(task, block);
      load_keys(task, block, count, thread);
      run_pair(task, block, count, queries, Gradients::queries, thread);
    }
  }

  /// One block of queries against one of keys, both already loaded.
  void run_pair(Index task, Index block, Index count, const QueryBlock& queries, Gradients gradients,
                int thread) const {
    C* const q = scratch_.queries(thread);
    C* const dy = scratch_.dsums(thread);
    C* const weights = scratch_.weights(thread);
    C* const dweights = scratch_.dweights(thread);
    const C scale = static_cast<C>(1 / std::sqrt(static_cast<double>(HeadWidth)));
    for (Index r = 0; r < queries.rows; ++r) {
      const Index row = row_of(task, queries.step_of(r)), column = query_head(task, r) * HeadWidth;
      copy_padded<HeadWidth>(attention_.q.row(row) + column, scale, q + r * width);
      copy_padded<HeadWidth>(attention_.dy.row(row) + column, C(1), dy + r * width);
    }
    const Index columns = padded_to_packets<C>(count);
    const auto scores = [&](const C* a, const C* transposed, C* to) {
      block_product<C>({a, width, 1, transposed, Blocks::keys, to, Blocks::keys, false}, queries.rows, columns,
                       HeadWidth);
    };
    scores(q, scratch_.transposed_keys(thread), weights);
    scores(dy, scratch_.transposed_values(thread), dweights);
    const SeenRows seen = seen_by(task);
    for (Index r = 0; r < queries.rows; ++r) {
      const Index step = queries.step_of(r), row = row_of(task, step) * heads_.queries + query_head(task, r);
      const Range seen_columns{std::clamp<Index>(seen.first(step) - block * Blocks::keys, 0, count),
                               std::clamp<Index>(seen.last(step) - block * Blocks::keys, 0, count)};
      weights_and_gradients(weights + r * Blocks::keys, dweights + r * Blocks::keys, seen_columns, count,
                            attention_.log_sums[row], scratch_.means[row]);
    }
    if (gradients != Gradients::queries) {
      const auto add_columns = [&](const C* a, const C* b, C* to) {
        block_product<C>({a, 1, Blocks::keys, b, width, to, width, true}, count, width, queries.rows);
      };
      add_columns(weights, dy, scratch_.dvalues(thread));
      add_columns(dweights, q, scratch_.dkeys(thread));
    }
    if (gradients != Gradients::keys) {
      C* const dq = scratch_.dqueries(thread);
      block_product<C>({dweights, Blocks::keys, 1, scratch_.keys(thread), width, dq, width, false}, queries.rows, width,
                       count);
      for (Index r = 0; r < queries.rows; ++r) {
        C* const to = attention_.dq.row(row_of(task, queries.step_of(r))) + query_head(task, r) * HeadWidth;
        add_row(dq + r * width, scale, to);
      }
    }
  }

  /// In place: scores become weights, and the products dy · v become gradients with respect to the scores. Both are
  /// zero outside `columns`.
  static void weights_and_gradients(C* weights, C* dweights, Range columns, Index count, C log_sum, C mean) {
    for (C* const line : {weights, dweights}) {
      std::fill(line, line + std::min(columns.first, count), C(0));
      std::fill(line + columns.last, line + count, C(0));
    }
    for (Index i = columns.first; i < columns.last; i += lanes<P>) {
      const Index here = std::min(lanes<P>, columns.last - i);
      // Lanes past the last column read log_sum and mean, for a weight of e^0 and a gradient of 0.
      const auto read = [&](const C* from, C rest) {
        return here == lanes<P> ? load<P>(from) : load_partial<P>(from, here, rest);
      };
      const auto write = [&](C* to, const P& value) {
        here == lanes<P> ? store(to, value) : store_partial<P>(to, value, here);
      };
      const P weight = exponential(read(weights + i, log_sum) - log_sum);
      write(dweights + i, weight * (read(dweights + i, mean) - mean));
      write(weights + i, weight);
    }
  }

  /// to += factor · from
  static void add_row(const C* from, C factor, C* to) {
    sweep<C>(HeadWidth, [=]<class Q>(Index i) { store(to + i, fma(load<Q>(from + i), factor, load<Q>(to + i))); });
  }

  void add_key_gradients(Index task, Index block, Index count, int thread) const {
    const SeenRows seen = seen_by(task);
    const Index head = head_of(task);
    C* const slots = dstate(task);
    for (Index j = 0; j < count; ++j) {
      const Index row = block * Blocks::keys + j;
      const auto add_to = [&](const C* from, MatrixView<C> own, Index offset) {
        if (row >= seen.cached) {
          add_row(from + j * width, C(1), own.row(row_of(task, row - seen.cached)) + head * HeadWidth);
        } else if (slots != nullptr) {
          add_row(from + j * width, C(1), slots + offset + seen.slot(row) * HeadWidth);
        }
      };
      add_to(scratch_.dkeys(thread), attention_.dk, cache_.keys(head));
      add_to(scratch_.dvalues(thread), attention_.dv, cache_.values(head));
    }
  }

  Device& device_;
  const CausalAttentionBackward<C, HeadWidth>& attention_;
  AttentionHeads heads_;
  AttentionCache<HeadWidth> cache_;
  QueryBlocks<C> query_blocks_;
  Scratch scratch_;
};

}  // namespace detail

/// See ops/attention.hpp. Nothing is allocated.
template <class C, int HeadWidth>
void causal_attention_backward(Device& device, const CausalAttentionBackward<C, HeadWidth>& attention) {
  if (each_packed_run(attention, [&](const auto& part) { causal_attention_backward(device, part); })) return;
  detail::AttentionBackward<C, HeadWidth>(device, attention).run();
}

/// Upper bound on either pass's scratch in bytes, for this shape and any smaller one.
template <class C, int HeadWidth>
std::size_t causal_attention_scratch(const Device& device, Shape shape, const AttentionHeads& heads) {
  if (shape.lengths != nullptr) {
    return largest_run_scratch(shape,
                               [&](Shape run) { return causal_attention_scratch<C, HeadWidth>(device, run, heads); });
  }
  return std::max(bytes_of<detail::AttentionScratch<C, HeadWidth>>(device.threads(), shape, heads),
                  bytes_of<detail::AttentionBackwardScratch<C, HeadWidth>>(device.threads(), shape, heads));
}

}  // namespace moe_mamba::inline v0_2::cpu
