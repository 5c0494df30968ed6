#pragma once

#include <cmath>
#include <limits>

#include "moe_mamba/cpu/attention_blocks.hpp"
#include "moe_mamba/cpu/dot_products.hpp"

/// Causal attention on the CPU, forward; the contract is in ops/attention.hpp.
///
/// A task is a block of queries of one sequence, for all heads that share keys. It iterates over blocks of keys with a
/// running maximum and sum (Milakov & Gimelshein 2018; Dao et al. 2022, arXiv 2205.14135): the scores of a few rows are
/// computed, exponentiated and multiplied by the values while they are in the L1 cache, and no (steps, keys) matrix is
/// ever stored. With few queries, above all in a decoding step, keys are read in place and split among tasks, whose
/// partial results are merged afterwards (flash-decoding).
namespace moe_mamba::inline v0_2::cpu {

namespace detail {

/// The threads' blocks, and the partial results of the splits when there are few queries.
template <class C, int HeadWidth>
struct AttentionScratch {
  using Blocks = AttentionBlocks<C>;
  static constexpr Index width = padded_to_packets<C>(HeadWidth);
  static constexpr Index score_stride = std::max(Blocks::keys, Blocks::split_keys);

  AttentionScratch(Arena& arena, int threads, Shape shape, const AttentionHeads& heads) {
    const Index most = std::max({QueryBlocks<C>{1, heads.group()}.rows(), Blocks::decode_rows, heads.group()});
    thread_size = HeadWidth * Blocks::keys + Blocks::split_keys * width + 2 * most * width +
                  std::max(Blocks::rows * Blocks::keys, max_decode_rows(heads) * score_stride) + 2 * most + 4 * line;
    rows = most;
    blocks = arena.take<C>(threads * thread_size);
    splits = ceiling_divide(heads.context + Blocks::decode_rows, Blocks::split_keys);
    partial = arena.take<C>(shape.batch * heads.key_values * splits * max_decode_rows(heads) * (width + 2));
  }

  static constexpr Index max_decode_rows(const AttentionHeads& heads) {
    return std::max(Blocks::decode_rows, heads.group());
  }

  static constexpr Index line = Index{Arena::alignment} / Index{sizeof(C)};
  Index thread_size, rows, splits;
  C* blocks;   // (threads, thread_size)
  C* partial;  // (B, G, splits, rows, width + 2): weighted sum of the values, largest score, sum of weights

  C* transposed_keys(int thread) const { return blocks + thread * thread_size; }              // [d, keys]
  C* values(int thread) const { return transposed_keys(thread) + HeadWidth * Blocks::keys; }  // [split, width]
  C* queries(int thread) const { return values(thread) + Blocks::split_keys * width; }        // [rows, width]
  C* sums(int thread) const { return queries(thread) + rows * width; }                        // [rows, width]
  C* largest(int thread) const { return sums(thread) + rows * width; }                        // [rows]
  C* totals(int thread) const { return largest(thread) + rows; }                              // [rows]
  C* scores(int thread) const { return totals(thread) + rows; }                               // a few rows
};

/// The forward pass of one call.
template <class C, int HeadWidth>
class AttentionForward {
  using Blocks = AttentionBlocks<C>;
  using P = Packet<C>;
  using Scratch = AttentionScratch<C, HeadWidth>;
  using View = SeenView<C, HeadWidth>;
  static constexpr Index width = Scratch::width;

 public:
  AttentionForward(Device& device, const CausalAttention<C, HeadWidth>& attention)
      : device_(device), attention_(attention), heads_(attention.heads), cache_(attention.heads), scratch_([&] {
          Arena arena = attention.scratch;
          return Scratch(arena, device.threads(), attention.shape, attention.heads);
        }()) {}

  void run() {
    const Index tasks = attention_.shape.batch * heads_.key_values, length = attention_.shape.length;
    if (attention_.saved_state != nullptr) save_states();
    if (length == 0) return;
    if (length == 1 || length * heads_.group() <= Blocks::decode_rows) {
      device_.parallel(tasks * scratch_.splits, [&](Index task, int thread) {
        decode_split(task / scratch_.splits, task % scratch_.splits, thread);
      });
      device_.parallel(tasks, [&](Index task, int) {
        merge_splits(task);
        update_cache(task);
      });
    } else {
      const QueryBlocks<C> blocks{length, heads_.group()};
      device_.parallel(tasks * blocks.blocks(), [&](Index task, int thread) {
        // Threads take tasks from the last to the first, so the last blocks, which attend to the most keys, start
        // first.
        prefill_block(task % tasks, blocks.block(task / tasks), thread);
      });
      device_.parallel(tasks, [&](Index task, int) { update_cache(task); });
    }
    for (Index sequence = 0; sequence < attention_.shape.batch && attention_.state; ++sequence) {
      C* const position = attention_.state.sequence(sequence) + cache_.position();
      write_position(read_position(position) + length, position);
    }
  }

 private:
  Index sequence_of(Index task) const { return task / heads_.key_values; }
  Index head_of(Index task) const { return task % heads_.key_values; }
  const C* state_of(Index task) const {
    return attention_.state ? attention_.state.sequence(sequence_of(task)) : nullptr;
  }
  SeenRows seen_by(Index task) const {
    const C* const state = state_of(task);
    return {state == nullptr ? 0 : read_position(state + cache_.position()), heads_.context};
  }
  View view(Index task, MatrixView<const C> own, Index offset) const {
    const C* const state = state_of(task);
    return {seen_by(task), state == nullptr ? nullptr : state + offset,
            own.row(sequence_of(task) * attention_.shape.length) + head_of(task) * HeadWidth, own.stride};
  }
  View keys(Index task) const { return view(task, attention_.k, cache_.keys(head_of(task))); }
  View values(Index task) const { return view(task, attention_.v, cache_.values(head_of(task))); }

  Index row_of(Index task, Index step) const { return sequence_of(task) * attention_.shape.length + step; }
  Index query_head(Index task, Index row) const { return head_of(task) * heads_.group() + row % heads_.group(); }

  /// Saves the rows of each initial state that were read, and its position.
  void save_states() {
    device_.parallel(attention_.shape.batch * heads_.key_values, [&](Index task, int) {
      const C* const state = state_of(task);
      const SeenRows seen = seen_by(task);
      C* const saved = attention_.saved_state + sequence_of(task) * cache_.size();
      for (const Index offset : {cache_.keys(head_of(task)), cache_.values(head_of(task))}) {
        // Until the ring buffer is full, it is read from slot 0 on.
        if (state != nullptr) std::copy_n(state + offset, seen.cached * HeadWidth, saved + offset);
      }
      if (head_of(task) == 0) write_position(seen.position, saved + cache_.position());
    });
  }

  void load_queries(Index task, const QueryBlock& block, C* to) const {
    const C scale = static_cast<C>(1 / std::sqrt(static_cast<double>(HeadWidth)));
    for (Index r = 0; r < block.rows; ++r) {
      copy_padded<HeadWidth>(attention_.q.row(row_of(task, block.step_of(r))) + query_head(task, r) * Index{HeadWidth},
                             scale, to + r * width);
    }
  }

  /// Of the scores of keys first … first + count - 1, the columns that `step` attends to.
  static Range seen_columns(const SeenRows& seen, Index step, Index first, Index count) {
    return {std::clamp<Index>(seen.first(step) - first, 0, count),
            std::clamp<Index>(seen.last(step) - first, 0, count)};
  }

  /// Online softmax: scores of up to Blocks::rows rows become weights, and the sums of weighted values are updated.
  void update_sums(const SeenRows& seen, const QueryBlock& block, Index row, Index rows, Index first, Index count,
                   C* scores, Index stride, const C* values, Index value_stride, int thread) const {
    C* const sums = scratch_.sums(thread) + row * width;
    C* const largest = scratch_.largest(thread) + row;
    C* const totals = scratch_.totals(thread) + row;
    Range seen_by_all{0, count}, columns[Blocks::rows];
    for (Index i = 0; i < rows; ++i) {
      const Range own = columns[i] = seen_columns(seen, block.step_of(row + i), first, count);
      seen_by_all = {std::max(seen_by_all.first, own.first), std::min(seen_by_all.last, own.last)};
      if (own.first >= own.last) continue;
      C* const line = scores + i * stride + own.first;
      const C before = largest[i];
      largest[i] = std::max(sweep_max(line, own.last - own.first), before);
      const C total = exponentials(line, own.last - own.first, largest[i]);
      const C factor = before == largest[i] ? C(1) : exponential(before - largest[i]);
      totals[i] = totals[i] * factor + total;
      if (factor == C(1)) continue;
      for (Index k = 0; k < width; k += lanes<P>) {
        store(sums + i * width + k, load<P>(sums + i * width + k) * factor);
      }
    }
    const auto add_values = [&](Index i, Index count_of_rows, Range range) {
      if (range.first >= range.last) return;
      block_product<C>({scores + i * stride + range.first, stride, 1, values + range.first * value_stride, value_stride,
                        sums + i * width, width, true},
                       count_of_rows, width, range.last - range.first);
    };
    // Keys that all rows attend to go through one product. A masked key is left out rather than weighted with zero, as
    // 0 times NaN is NaN.
    if (seen_by_all.first >= seen_by_all.last) seen_by_all = {count, count};
    add_values(0, rows, seen_by_all);
    for (Index i = 0; i < rows; ++i) {
      add_values(i, 1, {columns[i].first, std::min(columns[i].last, seen_by_all.first)});
      add_values(i, 1, {std::max(columns[i].first, seen_by_all.last), columns[i].last});
    }
  }

  void begin(Index rows, int thread) const {
    std::fill_n(scratch_.sums(thread), rows * width, C(0));
    std::fill_n(scratch_.largest(thread), rows, -std::numeric_limits<C>::infinity());
    std::fill_n(scratch_.totals(thread), rows, C(0));
  }

  void prefill_block(Index task, const QueryBlock& block, int thread) const {
    const View k = keys(task), v = values(task);
    C* const queries = scratch_.queries(thread);
    C* const scores = scratch_.scores(thread);
    C* const transposed = scratch_.transposed_keys(thread);
    C* const value_rows = scratch_.values(thread);
    load_queries(task, block, queries);
    begin(block.rows, thread);
    const Index end = k.seen.last(block.last_step());
    for (Index first = k.seen.first(block.step); first < end; first += Blocks::keys) {
      const Index count = std::min(Blocks::keys, end - first);
      copy_transposed(k, first, count, transposed);
      copy_rows(v, first, count, value_rows);
      for (Index row = 0; row < block.rows; row += Blocks::rows) {
        const Index rows = std::min<Index>(Blocks::rows, block.rows - row);
        const Index needed = std::min(count, k.seen.last(block.step_of(row + rows - 1)) - first);
        if (needed <= 0) continue;
        block_product<C>({queries + row * width, width, 1, transposed, Blocks::keys, scores, Blocks::keys, false}, rows,
                         padded_to_packets<C>(needed), HeadWidth);
        update_sums(k.seen, block, row, rows, first, needed, scores, Blocks::keys, value_rows, width, thread);
      }
    }
    for (Index r = 0; r < block.rows; ++r) {
      finish(task, block.step_of(r), query_head(task, r), scratch_.sums(thread) + r * width,
             scratch_.largest(thread)[r], scratch_.totals(thread)[r]);
    }
  }

  void finish(Index task, Index step, Index head, const C* sums, C largest, C total) const {
    const Index row = row_of(task, step);
    C* const to = attention_.y.row(row) + head * HeadWidth;
    const C factor = C(1) / total;
    sweep<C>(HeadWidth, [=]<class Q>(Index i) { store(to + i, load<Q>(sums + i) * factor); });
    if (attention_.log_sums != nullptr) attention_.log_sums[row * heads_.queries + head] = largest + std::log(total);
  }

  Index decode_rows() const { return attention_.shape.length * heads_.group(); }
  C* partial_result(Index task, Index split, Index row) const {
    return scratch_.partial + ((task * scratch_.splits + split) * decode_rows() + row) * (width + 2);
  }

  /// All of the call's queries of one key-value head, over one split of the keys.
  void decode_split(Index task, Index split, int thread) const {
    const View k = keys(task), v = values(task);
    const QueryBlock block{0, decode_rows(), heads_.group()};
    const Index end = std::min(k.seen.last(block.last_step()), (split + 1) * Blocks::split_keys);
    C* const queries = scratch_.queries(thread);
    C* const scores = scratch_.scores(thread);
    Index first = split * Blocks::split_keys;
    if (first >= end) {  // an empty split: the window is not full yet
      for (Index r = 0; r < block.rows; ++r) {
        write_partial(partial_result(task, split, r), -std::numeric_limits<C>::infinity(), C(0));
      }
      return;
    }
    begin(block.rows, thread);
    load_queries(task, block, queries);
    while (first < end) {
      const Index count = k.contiguous(first, end);
      const Product<C, C> product{
          queries, width,     k.row(first), k.stride(first), scores, Blocks::split_keys, block.rows,
          count,   HeadWidth, false};
      dot_products(product, {0, block.rows}, {0, count}, nullptr);  // no scratch: keys need no widening
      const C* value_rows = v.row(first);
      Index value_stride = v.stride(first);
      if constexpr (width != HeadWidth) {
        copy_rows(v, first, count, scratch_.values(thread));
        value_rows = scratch_.values(thread);
        value_stride = width;
      }
      for (Index row = 0; row < block.rows; row += Blocks::rows) {
        update_sums(k.seen, block, row, std::min<Index>(Blocks::rows, block.rows - row), first, count,
                    scores + row * Blocks::split_keys, Blocks::split_keys, value_rows, value_stride, thread);
      }
      first += count;
    }
    for (Index r = 0; r < block.rows; ++r) {
      C* const to = partial_result(task, split, r);
      std::copy_n(scratch_.sums(thread) + r * width, width, to);
      write_partial(to, scratch_.largest(thread)[r], scratch_.totals(thread)[r]);
    }
  }
  static void write_partial(C* part, C largest, C total) { part[width] = largest, part[width + 1] = total; }

  /// Merges the partial results of a head's splits, first to last.
  void merge_splits(Index task) const {
    for (Index r = 0; r < decode_rows(); ++r) {
      alignas(64) C sums[array_size<width>] = {};
      C largest = partial_result(task, 0, r)[width], total = 0;
      for (Index split = 1; split < scratch_.splits; ++split) {
        largest = std::max(partial_result(task, split, r)[width], largest);
      }
      for (Index split = 0; split < scratch_.splits; ++split) {
        const C* const from = partial_result(task, split, r);
        if (from[width + 1] == C(0)) continue;  // attends to none of these keys
        const C factor = exponential(from[width] - largest);
        total += factor * from[width + 1];
        for (Index k = 0; k < width; k += lanes<P>) {
          store(sums + k, fma(load<P>(from + k), factor, load<P>(sums + k)));
        }
      }
      finish(task, r / heads_.group(), query_head(task, r), sums, largest, total);
    }
  }

  /// Writes the call's last rows into the cache.
  void update_cache(Index task) const {
    if (!attention_.state) return;
    C* const state = attention_.state.sequence(sequence_of(task));
    const SeenRows seen = seen_by(task);
    const View k = keys(task), v = values(task);
    const Index length = attention_.shape.length;
    for (Index t = std::max<Index>(0, length - heads_.context); t < length; ++t) {
      const Index row = seen.cached + t, offset = seen.slot(row) * HeadWidth;
      std::copy_n(k.row(row), HeadWidth, state + cache_.keys(head_of(task)) + offset);
      std::copy_n(v.row(row), HeadWidth, state + cache_.values(head_of(task)) + offset);
    }
  }

  Device& device_;
  const CausalAttention<C, HeadWidth>& attention_;
  AttentionHeads heads_;
  AttentionCache<HeadWidth> cache_;
  Scratch scratch_;
};

}  // namespace detail

/// See ops/attention.hpp. Nothing is allocated.
template <class C, int HeadWidth>
void causal_attention(Device& device, const CausalAttention<C, HeadWidth>& attention) {
  if (each_packed_run(attention, [&](const auto& part) { causal_attention(device, part); })) return;
  detail::AttentionForward<C, HeadWidth>(device, attention).run();
}

}  // namespace moe_mamba::inline v0_2::cpu
