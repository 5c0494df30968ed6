#include "gpu/operations.cuh"
#include "moe_mamba/cuda/dispatch.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"
#include "moe_mamba/reference/linear.hpp"

using namespace moe_mamba;

namespace {

/// Twice the error of a plain loop in a sum of `count` products, relative to the largest of many such sums.
template <class C>
double sum_bound(Index count) {
  return (8 + std::sqrt(double(count))) * test::rounding<C>;
}

/// Activations that are exact in bfloat16 if the weights are bfloat16, so that only the error of sums remains.
template <class C, class S>
std::vector<C> draw(Index count, std::uint64_t seed) {
  return test::converted<C>(test::uniform<S>(count, seed));
}

/// From activations of type X to those of type Y; the reverse in a backward pass.
template <class X, class Y, class S>
void check_linear(test::Report& report) {
  using C = compute_t<X>;
  struct Size {
    Index rows, in, out;
  };
  for (const Size size : {Size{0, 5, 7},
                          {1, 1, 1},
                          {1, 33, 129},
                          {1, 1024, 515},
                          {2, 1031, 127},
                          {1, 4096, 40},
                          {3, 4099, 20},
                          {4, 64, 40},
                          {5, 64, 40},
                          {31, 33, 32},
                          {32, 128, 127},
                          {33, 1031, 129},
                          {129, 127, 31},
                          {257, 256, 128},
                          {1031, 64, 33},
                          {40, 72, 2051},
                          {24, 2051, 72}}) {
    const Index rows = size.rows, in = size.in, out = size.out, in_stride = in + 3, out_stride = out + 1;
    const std::string name = std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out);
    const auto wide = [&](auto* data) {
      return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, in, in_stride};
    };
    const auto high = [&](auto* data) {
      return MatrixView<std::remove_pointer_t<decltype(data)>>{data, rows, out, out_stride};
    };
    const auto weight = test::uniform<S>(out * in, 2);
    report.check(
        "linear " + name, sum_bound<C>(in),
        std::make_tuple(draw<X, S>(rows * in_stride, 1), weight, test::poison<Y>(rows * out_stride)),
        [&](auto& device, auto* x, auto* w, auto* y) { linear(device, wide(x), test::fixed(w, out, in), high(y)); });
    for (const Into into : {Into::assign, Into::add}) {
      const auto before = into == Into::add ? test::uniform<X>(rows * in_stride, 4) : test::poison<X>(rows * in_stride);
      report.check("backward input " + name, sum_bound<C>(out),
                   std::make_tuple(draw<Y, S>(rows * out_stride, 3), weight, before),
                   [&](auto& device, auto* dy, auto* w, auto* dx) {
                     linear_backward_input(device, high(dy), test::fixed(w, out, in), wide(dx), into);
                   });
    }
    report.check("backward weight " + name, sum_bound<C>(rows),
                 std::make_tuple(draw<Y, S>(rows * out_stride, 5), draw<X, S>(rows * in_stride, 6),
                                 test::uniform<C>(out * in, 7)),
                 [&](auto& device, auto* dy, auto* x, auto* dweight) {
                   linear_backward_weight<S>(device, high(dy), wide(x), matrix(dweight, out, in));
                 });
    report.check("bias " + name, sum_bound<C>(1),
                 std::make_tuple(test::uniform<S>(out, 8), test::uniform<Y>(rows * out_stride, 9),
                                 test::uniform<Y>(rows * out_stride, 10), test::uniform<C>(out, 11)),
                 [&](auto& device, const auto* bias, auto* y, auto* dy, auto* dbias) {
                   add_bias(device, bias, high(y));
                   bias_backward(device, high(dy), dbias);
                 });
  }
}

/// Offsets of `groups` groups over `rows` rows but the last few: even, all in one, or with empty ones.
std::vector<Index> draw_offsets(Index rows, Index groups, int kind) {
  const Index used = rows - (rows > 3 ? 2 : 0);
  std::vector<Index> offsets = {0};
  for (Index g = 1; g < groups; ++g) {
    const Index even = used * g / groups;
    offsets.push_back(kind == 0   ? even
                      : kind == 1 ? (g > groups / 2 ? used : 0)
                                  : std::max(offsets.back(), (even / 40) * 40));
  }
  offsets.push_back(used);
  return offsets;
}

template <class S>
void check_grouped(test::Report& report) {
  using C = compute_t<S>;
  struct Size {
    Index rows, groups, in, out;
  };
  for (const Size size : {Size{0, 3, 8, 8},
                          {1, 4, 64, 48},
                          {7, 3, 33, 129},
                          {7, 3, 4096, 24},
                          {16, 40, 136, 64},
                          {31, 4, 40, 72},
                          {33, 1, 128, 127},
                          {127, 5, 256, 128},
                          {128, 3, 31, 33},
                          {129, 2, 72, 264},
                          {300, 70, 64, 520},
                          {1031, 8, 136, 152},
                          {1031, 4, 129, 65}}) {
    for (const int kind : {0, 1, 2}) {
      const Index rows = size.rows, groups = size.groups, in = size.in, out = size.out;
      const std::string name = std::to_string(rows) + " in " + std::to_string(groups) + ", " + std::to_string(in) +
                               " x " + std::to_string(out) + ", kind " + std::to_string(kind);
      const auto offsets = draw_offsets(rows, groups, kind);
      const auto weight = test::uniform<S>(groups * out * in, 2);
      report.check("grouped " + name, sum_bound<C>(in),
                   std::make_tuple(offsets, test::uniform<S>(rows * in, 1), weight, test::poison<S>(rows * out)),
                   [&](auto& device, const Index* ends, auto* x, const auto* w, auto* y) {
                     using Storage = std::remove_pointer_t<decltype(w)>;
                     grouped_linear(device, {ends, groups}, matrix(x, rows, in), MatrixStack<Storage>{w, out, in},
                                    matrix(y, rows, out));
                   });
      for (const Into into : {Into::assign, Into::add}) {
        const auto before = into == Into::add ? test::uniform<S>(rows * in, 4) : test::poison<S>(rows * in);
        report.check("grouped backward input " + name, sum_bound<C>(out),
                     std::make_tuple(offsets, test::uniform<S>(rows * out, 3), weight, before),
                     [&](auto& device, const Index* ends, auto* dy, const auto* w, auto* dx) {
                       using Storage = std::remove_pointer_t<decltype(w)>;
                       grouped_linear_backward_input(device, {ends, groups}, matrix(dy, rows, out),
                                                     MatrixStack<Storage>{w, out, in}, matrix(dx, rows, in), into);
                     });
      }
      for (const Into into : {Into::assign, Into::add}) {
        const Index size = groups * out * in;
        const auto before = into == Into::add ? test::uniform<C>(size, 7) : test::poison<C>(size);
        report.check("grouped backward weight " + name, sum_bound<C>(rows),
                     std::make_tuple(offsets, test::uniform<S>(rows * out, 5), test::uniform<S>(rows * in, 6), before),
                     [&](auto& device, const Index* ends, auto* dy, auto* x, auto* dweight) {
                       using Compute = std::remove_pointer_t<decltype(dweight)>;
                       grouped_linear_backward_weight<S>(device, {ends, groups}, matrix(dy, rows, out),
                                                         matrix(x, rows, in), MatrixStack<Compute>{dweight, out, in},
                                                         into);
                     });
      }
    }
  }
}

/// Products whose rows go to places of their own, some of which nobody takes: the reference's, and the bits of rows in
/// the order of the groups that are copied there.
template <class S>
void check_scattered(test::Report& report) {
  using C = compute_t<S>;
  struct Size {
    Index rows, groups, in, out;
  };
  for (const Size size : {Size{0, 3, 8, 8},
                          {1, 4, 64, 48},
                          {7, 3, 33, 129},
                          {9, 3, 64, 64},
                          {127, 5, 256, 128},
                          {129, 2, 72, 264},
                          {300, 70, 64, 520},
                          {1031, 4, 129, 65},
                          {5000, 3, 264, 776}}) {
    for (const int kind : {0, 1, 2}) {
      const Index rows = size.rows, groups = size.groups, in = size.in, out = size.out, tokens = rows + 3;
      const std::string name = std::to_string(rows) + " in " + std::to_string(groups) + ", " + std::to_string(in) +
                               " x " + std::to_string(out) + ", kind " + std::to_string(kind);
      const auto offsets = draw_offsets(rows, groups, kind);
      const Index used = offsets.back();
      const auto count = static_cast<std::size_t>(tokens);
      std::vector<Index> order(count), slots(count, -1);
      for (Index t = 0; t < tokens; ++t) order[std::size_t(t)] = t;
      Random random(Seed{9});
      for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(std::uint64_t(i))]);
      for (Index s = 0; s < used; ++s) slots[std::size_t(order[std::size_t(s)])] = s;
      const auto weight = test::uniform<S>(groups * out * in, 2);
      const auto forward = [&](auto& device, const Index* ends, const Index* places, auto* x, const auto* w, auto* y) {
        using Storage = std::remove_pointer_t<decltype(w)>;
        using Element = std::remove_pointer_t<decltype(y)>;
        grouped_linear(device, {ends, groups}, matrix(x, rows, in), MatrixStack<Storage>{w, out, in},
                       ScatteredRows<Element>{matrix(y, tokens, out), places, {}});
      };
      report.check(
          "scattered " + name, sum_bound<C>(in),
          std::make_tuple(offsets, order, test::uniform<S>(rows * in, 1), weight, test::uniform<S>(tokens * out, 4)),
          forward);
      for (const Into into : {Into::assign, Into::add}) {
        report.check(
            "scattered backward input " + name, sum_bound<C>(out),
            std::make_tuple(offsets, order, test::uniform<S>(rows * out, 3), weight, test::uniform<S>(tokens * in, 4)),
            [&](auto& device, const Index* ends, const Index* places, auto* dy, const auto* w, auto* dx) {
              using Storage = std::remove_pointer_t<decltype(w)>;
              using Element = std::remove_pointer_t<decltype(dx)>;
              grouped_linear_backward_input(device, {ends, groups}, matrix(dy, rows, out),
                                            MatrixStack<Storage>{w, out, in},
                                            ScatteredRows<Element>{matrix(dx, tokens, in), places, {}}, into);
            });
      }
      const auto ordered = [&](auto& device, const Index* ends, auto* x, const auto* w, auto* room) {
        grouped_linear(device, {ends, groups}, matrix(x, rows, in), MatrixStack<const S>{w, out, in},
                       matrix(room, rows, out));
      };
      report.same_bits(
          "scattered as combined " + name,
          std::make_tuple(offsets, order, slots, test::uniform<S>(rows * in, 1), weight,
                          std::vector<S>(std::size_t(rows * out)), std::vector<S>(std::size_t(tokens * out))),
          [&](auto& device, const Index* ends, const Index* places, const Index*, auto* x, const auto* w, auto* room,
              auto* y) {
            ordered(device, ends, x, w, room);
            forward(device, ends, places, x, w, y);
          },
          [&](auto& device, const Index* ends, const Index*, const Index* from, auto* x, const auto* w, auto* room,
              auto* y) {
            ordered(device, ends, x, w, room);
            combine_rows(device, matrix(room, rows, out), from, 1, nullptr, matrix(y, tokens, out), Into::assign);
          });
    }
  }
}

/// As tensor cores take a float for TF32.
float to_tf32(float value) {
  return __builtin_bit_cast(float, (__builtin_bit_cast(std::uint32_t, value) + 0x1000u) & ~0x1fffu);
}

/// Floats of full precision, and the same rounded as for products with weights of S.
template <class S>
struct Drawn {
  std::vector<float> exact, rounded;

  Drawn(Index count, std::uint64_t seed) : exact(test::uniform<float>(count, seed)), rounded(exact) {
    for (float& value : rounded) {
      value = std::is_same_v<S, bfloat16> ? static_cast<float>(bfloat16(value)) : to_tf32(value);
    }
  }
};

/// A product of rounded operands: its error is at most twice that of rounding alone, plus the error of sums.
template <class... T, class Call>
void check_rounded(test::Report& report, const std::string& name, Index inner,
                   const std::tuple<std::vector<T>...>& arrays, const std::tuple<std::vector<T>...>& rounded,
                   const Call& call) {
  reference::Device plain;
  const auto result = [&](const auto& from) {
    auto exact = std::apply([](const auto&... array) { return std::make_tuple(test::exact(array)...); }, from);
    std::apply([&](auto&... array) { call(plain, array.data()...); }, exact);
    return std::get<sizeof...(T) - 1>(exact);
  };
  report.check(name, 2 * test::error(result(rounded), result(arrays)) + sum_bound<float>(inner), arrays, call);
}

/// Activations of full precision with weights of S, and both operands of full precision for their gradients.
template <class S>
void check_rounding(test::Report& report) {
  struct Size {
    Index rows, groups, in, out;
  };
  for (const Size size : {Size{300, 2, 256, 264},
                          {1031, 1, 136, 152},
                          {33, 3, 129, 65},
                          {640, 128, 64, 128},
                          {2000, 128, 128, 72},
                          {4200, 2, 72, 136}}) {
    const Index rows = size.rows, groups = size.groups, in = size.in, out = size.out;
    const std::string name = std::to_string(rows) + " in " + std::to_string(groups) + ", " + std::to_string(in) +
                             " x " + std::to_string(out);
    const auto offsets = draw_offsets(rows, groups, 0);
    const Drawn<S> x(rows * in, 1), dy(rows * out, 3), floats(groups * out * in, 2);
    std::vector<S> weight, rounded_weight;
    if constexpr (std::is_same_v<S, bfloat16>) {
      weight = rounded_weight = test::uniform<bfloat16>(groups * out * in, 2);
    } else {
      weight = floats.exact, rounded_weight = floats.rounded;
    }
    const auto y = test::poison<float>(rows * out), dx = test::poison<float>(rows * in);
    const std::vector<float> dweight(static_cast<std::size_t>(groups * out * in), 1.0f);
    const std::vector<float> one_dweight(static_cast<std::size_t>(out * in), 1.0f);

    check_rounded(report, "linear " + name, in, std::make_tuple(x.exact, weight, y),
                  std::make_tuple(x.rounded, rounded_weight, y), [&](auto& device, auto* from, auto* w, auto* to) {
                    linear(device, matrix(from, rows, in), test::fixed(w, out, in), matrix(to, rows, out));
                  });
    check_rounded(report, "backward input " + name, out, std::make_tuple(dy.exact, weight, dx),
                  std::make_tuple(dy.rounded, rounded_weight, dx), [&](auto& device, auto* from, auto* w, auto* to) {
                    linear_backward_input(device, matrix(from, rows, out), test::fixed(w, out, in),
                                          matrix(to, rows, in), Into::assign);
                  });
    check_rounded(
        report, "backward weight " + name, rows, std::make_tuple(dy.exact, x.exact, one_dweight),
        std::make_tuple(dy.rounded, x.rounded, one_dweight), [&](auto& device, auto* from, auto* with, auto* to) {
          linear_backward_weight<S>(device, matrix(from, rows, out), matrix(with, rows, in), matrix(to, out, in));
        });
    if constexpr (std::is_same_v<S, bfloat16>)
      continue;  // grouped products take bfloat16 activations
    else {
      check_rounded(report, "grouped " + name, in, std::make_tuple(offsets, x.exact, weight, y),
                    std::make_tuple(offsets, x.rounded, rounded_weight, y),
                    [&](auto& device, const Index* ends, auto* from, const auto* w, auto* to) {
                      using Storage = std::remove_pointer_t<decltype(w)>;
                      grouped_linear(device, {ends, groups}, matrix(from, rows, in), MatrixStack<Storage>{w, out, in},
                                     matrix(to, rows, out));
                    });
      check_rounded(report, "grouped backward input " + name, out, std::make_tuple(offsets, dy.exact, weight, dx),
                    std::make_tuple(offsets, dy.rounded, rounded_weight, dx),
                    [&](auto& device, const Index* ends, auto* from, const auto* w, auto* to) {
                      using Storage = std::remove_pointer_t<decltype(w)>;
                      grouped_linear_backward_input(device, {ends, groups}, matrix(from, rows, out),
                                                    MatrixStack<Storage>{w, out, in}, matrix(to, rows, in),
                                                    Into::assign);
                    });
      check_rounded(
          report, "grouped backward weight " + name, rows, std::make_tuple(offsets, dy.exact, x.exact, dweight),
          std::make_tuple(offsets, dy.rounded, x.rounded, dweight),
          [&](auto& device, const Index* ends, auto* from, auto* with, auto* to) {
            using Compute = std::remove_pointer_t<decltype(to)>;
            grouped_linear_backward_weight<S>(device, {ends, groups}, matrix(from, rows, out), matrix(with, rows, in),
                                              MatrixStack<Compute>{to, out, in}, Into::add);
          });
    }
  }
}

/// More rows than fit as operands in the scratch memory at a time; the first part ends within a group.
void check_blocks(test::Report& report) {
  const Index rows = 4500, in = 16388, out = 8;  // rows of `in` are not aligned, so they are copied
  const std::vector<Index> offsets = {0, 1000, 4500};
  for (const Into into : {Into::assign, Into::add}) {
    const Index size = 2 * out * in;
    const auto before = into == Into::add ? test::uniform<float>(size, 7) : test::poison<float>(size);
    report.check(
        "grouped backward weight in blocks", sum_bound<float>(rows),
        std::make_tuple(offsets, test::uniform<bfloat16>(rows * out, 5), test::uniform<bfloat16>(rows * in, 6), before),
        [&](auto& device, const Index* ends, auto* dy, auto* x, auto* dweight) {
          using Compute = std::remove_pointer_t<decltype(dweight)>;
          grouped_linear_backward_weight<bfloat16>(device, {ends, 2}, matrix(dy, rows, out), matrix(x, rows, in),
                                                   MatrixStack<Compute>{dweight, out, in}, into);
        });
  }
}

}  // namespace

int main() {
  const int code = test::run_checks([](test::Report& report) {
    report.group("products float");
    check_linear<float, float, float>(report);
    report.group("products bfloat16");
    check_linear<bfloat16, bfloat16, bfloat16>(report);
    report.group("products bfloat16 to float");
    check_linear<bfloat16, float, bfloat16>(report);
    report.group("products float, bfloat16 parameters");
    check_linear<float, float, bfloat16>(report);
    report.group("products double");
    check_linear<double, double, double>(report);
    report.group("grouped float");
    check_grouped<float>(report);
    report.group("grouped bfloat16");
    check_grouped<bfloat16>(report);
    report.group("grouped double");
    check_grouped<double>(report);
    report.group("scattered float");
    check_scattered<float>(report);
    report.group("scattered bfloat16");
    check_scattered<bfloat16>(report);
    report.group("scattered double");
    check_scattered<double>(report);
    report.group("rounding to bfloat16");
    check_rounding<bfloat16>(report);
    report.group("more rows than are copied at a time");
    check_blocks(report);
  });
  if (code != 0) return code;
  return test::run_checks(
      [](test::Report& report) {
        report.group("rounding to TF32");
        check_rounding<float>(report);
      },
      {.products = FloatProducts::tf32});
}
