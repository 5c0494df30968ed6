#include "gpu/operations.cuh"
#include "gpu/support.cuh"
#include "moe_mamba/cuda/attention/backward.cuh"
#include "moe_mamba/cuda/attention/forward.cuh"
#include "moe_mamba/cuda/rotary.cuh"
#include "moe_mamba/reference/attention.hpp"

using namespace moe_mamba;

namespace {

/// Scratch memory of an operation; the reference needs none.
inline Arena scratch_of(const cuda::Device& device) { return Arena(device.scratch()); }
inline Arena scratch_of(const reference::Device&) { return Arena(); }

template <class C, int d>
void check_attention(test::Report& report, Shape shape, AttentionHeads heads, Index read, Index gap = 3,
                     bool with_state = true) {
  const Index tokens = shape.tokens(), q_columns = heads.queries * d, k_columns = heads.key_values * d;
  const AttentionCache<d> cache(heads);
  using S = compute_t<C>;
  const Index stride = cache.size() + 5;
  const std::string name = std::to_string(shape.batch) + " x " + std::to_string(shape.length) + ", heads " +
                           std::to_string(heads.queries) + " / " + std::to_string(heads.key_values) + " of " +
                           std::to_string(d) + ", context " + std::to_string(heads.context) + ", read " +
                           std::to_string(read) + ", gap " + std::to_string(gap);
  // Scores are sums of d products and outputs of up to N, and an exponential doubles the error of its argument. In
  // bfloat16 a few roundings dominate: of outputs, which enter the gradients with respect to scores, and of the
  // operands of products.
  const double bound = std::is_same_v<C, bfloat16>
                           ? 0x1p-6
                           : (32 + std::sqrt(double(d)) + std::sqrt(double(heads.context))) * 4 * test::rounding<C>;
  auto state = test::uniform<S>(shape.batch * stride, 1, -2, 2);
  const auto dstate = test::uniform<S>(shape.batch * stride, 2);
  // Cached values have been rounded to C.
  for (auto& number : state) number = static_cast<S>(static_cast<C>(number));
  for (Index b = 0; b < shape.batch; ++b) {
    write_position(read == 0 ? 0 : read + b, state.data() + b * stride + cache.position());
  }
  const auto q = test::uniform<C>(tokens * (q_columns + gap), 3, -2, 2);
  const auto k = test::uniform<C>(tokens * (k_columns + gap), 4, -2, 2),
             v = test::uniform<C>(tokens * (k_columns + gap), 5);
  const auto dy = test::uniform<C>(tokens * q_columns, 6);
  const auto poison = [](Index count) { return test::poison<C>(count); };
  const auto arrays =
      std::make_tuple(q, k, v, state, dy, dstate, test::poison<S>(shape.batch * cache.size()),
                      poison(tokens * q_columns), test::poison<S>(tokens * heads.queries), poison(tokens * q_columns),
                      poison(tokens * k_columns), poison(tokens * k_columns));
  const auto passes = [&](bool one_by_one) {
    return [&, one_by_one](auto& device, auto* qs, auto* ks, auto* vs, auto* states, auto* dys, auto* dstates,
                           auto* saved, auto* ys, auto* log_sums, auto* dqs, auto* dks, auto* dvs) {
      using T = std::remove_reference_t<decltype(*ys)>;
      const auto rows = [&](auto* data, Index columns) {
        return MatrixView<const T>{data, tokens, columns, columns + gap};
      };
      const auto view = [&](auto* data) {
        using State = StateView<compute_t<T>>;
        return with_state ? State{data, stride} : State{};
      };
      const CausalAttention<T, d> forward{shape,
                                          heads,
                                          rows(qs, q_columns),
                                          rows(ks, k_columns),
                                          rows(vs, k_columns),
                                          view(states),
                                          saved,
                                          matrix(ys, tokens, q_columns),
                                          log_sums,
                                          scratch_of(device)};
      const CausalAttentionBackward<T, d> backward{shape,
                                                   heads,
                                                   rows(qs, q_columns),
                                                   rows(ks, k_columns),
                                                   rows(vs, k_columns),
                                                   saved,
                                                   matrix(ys, tokens, q_columns),
                                                   log_sums,
                                                   matrix(dys, tokens, q_columns),
                                                   matrix(dqs, tokens, q_columns),
                                                   matrix(dks, tokens, k_columns),
                                                   matrix(dvs, tokens, k_columns),
                                                   view(dstates),
                                                   scratch_of(device)};
      if (one_by_one) {
        each_packed_run(forward, [&](const auto& part) { causal_attention(device, part); });
        each_packed_run(backward, [&](const auto& part) { causal_attention_backward(device, part); });
      } else {
        causal_attention(device, forward);
        causal_attention_backward(device, backward);
      }
    };
  };
  report.check("attention " + name, bound, arrays, passes(false));
  if (shape.lengths != nullptr) report.same_bits("packed attention " + name, arrays, passes(false), passes(true));
}

/// Packed sequences agree with the reference, and bit for bit with each sequence alone.
template <class C, int d>
void check_packed(test::Report& report, Index gap = 3) {
  for (const auto& lengths : test::gpu::packed_lengths()) {
    const Shape shape = Shape::packed(lengths);
    check_attention<C, d>(report, shape, {2, 1, 50}, 60, gap);
    check_attention<C, d>(report, shape, {4, 2, shape.batch > 100 ? 70 : 300}, 0, gap, false);
  }
}

template <class C, int d>
void check_shapes(test::Report& report, Index gap = 3) {
  for (const Index length : {0, 1, 2, 7, 33, 130}) {
    for (const Index context : {1, 3, 64, 200}) {
      for (const Index read : {0, 1, 63, 1000}) check_attention<C, d>(report, {2, length}, {2, 1, context}, read, gap);
    }
  }
  check_attention<C, d>(report, {1, 1}, {3, 3, 3000}, 5000, gap);
  check_attention<C, d>(report, {3, 2}, {8, 2, 600}, 511, gap);
  check_attention<C, d>(report, {1, 1}, {20, 1, 100}, 99, gap);
  check_attention<C, d>(report, {2, 200}, {4, 2, 100}, 33, gap, false);
  check_attention<C, d>(report, {1, 333}, {6, 2, 400}, 0, gap, false);
}

/// A NaN in a row reaches the steps that attend to it, and no others: bfloat16 heads, in whose products masked keys
/// have a weight of zero.
template <int d>
void check_nan(test::Report& report) {
  const Shape shape{1, 200};
  const AttentionHeads heads{2, 1, 50};
  const Index tokens = shape.tokens(), q_columns = heads.queries * d;
  for (const Index nan_row : {0, 70, 133, 199}) {
    for (const int which : {0, 1, 2, 3}) {  // of q, k, v, dy
      std::vector<std::vector<bfloat16>> inputs;
      for (const Index columns : {q_columns, Index{d}, Index{d}, q_columns}) {
        inputs.push_back(test::uniform<bfloat16>(tokens * columns, 7 + inputs.size()));
      }
      const Index columns = Index(inputs[std::size_t(which)].size()) / tokens;
      for (Index c = 0; c < columns; ++c) {
        inputs[std::size_t(which)][std::size_t(nan_row * columns + c)] = static_cast<bfloat16>(NAN);
      }
      report.check("attention, NaN in " + std::to_string(which) + " at " + std::to_string(nan_row), 0x1p-6,
                   std::make_tuple(
                       inputs[0], inputs[1], inputs[2], inputs[3], test::poison<float>(AttentionCache<d>(heads).size()),
                       test::poison<bfloat16>(tokens * q_columns), test::poison<float>(tokens * heads.queries),
                       test::poison<bfloat16>(tokens * q_columns), test::poison<bfloat16>(tokens * d),
                       test::poison<bfloat16>(tokens * d)),
                   [&](auto& device, auto* q, auto* k, auto* v, auto* dy, auto* saved, auto* y, auto* log_sums,
                       auto* dq, auto* dk, auto* dv) {
                     using T = std::remove_reference_t<decltype(*y)>;
                     const auto rows = [&](auto* data, Index width) { return matrix<const T>(data, tokens, width); };
                     causal_attention(device, CausalAttention<T, d>{shape,
                                                                    heads,
                                                                    rows(q, q_columns),
                                                                    rows(k, d),
                                                                    rows(v, d),
                                                                    {},
                                                                    saved,
                                                                    matrix(y, tokens, q_columns),
                                                                    log_sums,
                                                                    scratch_of(device)});
                     causal_attention_backward(device, CausalAttentionBackward<T, d>{shape,
                                                                                     heads,
                                                                                     rows(q, q_columns),
                                                                                     rows(k, d),
                                                                                     rows(v, d),
                                                                                     saved,
                                                                                     rows(y, q_columns),
                                                                                     log_sums,
                                                                                     rows(dy, q_columns),
                                                                                     matrix(dq, tokens, q_columns),
                                                                                     matrix(dk, tokens, Index{d}),
                                                                                     matrix(dv, tokens, Index{d}),
                                                                                     {},
                                                                                     scratch_of(device)});
                   });
    }
  }
}

template <class C>
void check_rotary(test::Report& report) {
  const auto packed = test::gpu::packed_lengths();
  std::vector<Shape> shapes{{0, 3}, {2, 0}, {1, 1}, {3, 50}};
  for (const auto& lengths : packed) shapes.push_back(Shape::packed(lengths));
  for (const Shape& shape : shapes) {
    for (const auto& [width, rotary] : {std::pair<Index, Index>{2, 2}, {5, 4}, {64, 64}, {300, 270}}) {
      for (const Index read : {Index{0}, Index{777}, Index{1} << 40}) {
        for (const bool backward : {false, true}) {
          std::vector<compute_t<C>> positions(static_cast<std::size_t>(shape.batch * 3));
          for (Index b = 0; b < shape.batch; ++b) write_position(read + b, positions.data() + b * 3);
          const Index columns = 3 * width, stride = columns + 3;
          report.check(
              "rotary " + std::to_string(width) + ", " + std::to_string(rotary) + " from " + std::to_string(read),
              8 * test::rounding<C>, std::make_tuple(test::uniform<C>(shape.tokens() * stride, 1), positions),
              [&](auto& device, auto* x, auto* from) {
                using T = std::remove_reference_t<decltype(*x)>;
                rotary_embedding(device, RotaryEmbedding<T>{.shape = shape,
                                                            .x = {x, shape.tokens(), columns, stride},
                                                            .head_width = width,
                                                            .rotary_width = rotary,
                                                            .base = 10000,
                                                            .positions = StateView<compute_t<T>>{from, 3},
                                                            .backward = backward});
              });
        }
      }
    }
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("attention float");
    check_shapes<float, 1>(report);
    check_shapes<float, 5>(report);
    check_shapes<float, 64>(report);
    check_shapes<float, 128>(report);
    report.group("attention float, wide heads");
    check_attention<float, 256>(report, {1, 70}, {2, 1, 50}, 40);
    report.group("attention of packed sequences");
    check_packed<float, 5>(report);
    check_packed<bfloat16, 64>(report);
    check_packed<bfloat16, 64>(report, 8);
    check_packed<double, 72>(report);
    report.group("attention bfloat16");
    check_shapes<bfloat16, 64>(report);
    check_shapes<bfloat16, 5>(report);
    report.group("attention bfloat16, rows for tensor cores");
    check_shapes<bfloat16, 16>(report, 8);
    check_shapes<bfloat16, 64>(report, 8);
    check_shapes<bfloat16, 128>(report, 8);
    check_nan<64>(report);
    report.group("attention double");
    check_shapes<double, 5>(report);
    check_shapes<double, 72>(report);
    report.group("rotary float");
    check_rotary<float>(report);
    report.group("rotary bfloat16");
    check_rotary<bfloat16>(report);
    report.group("rotary double");
    check_rotary<double>(report);
  });
}
