// Properties of every operation of the CPU with every instruction set: equal operands give equal bits at any position
// in a row, in a whole packet or in the remainder, and no operation raises a floating-point exception on finite inputs
// with finite results.
#include <cfenv>
#include <cstring>
#include <set>
#include <string>
#include <utility>

#include "cpu/sequence_operations.hpp"
#include "support/catch.hpp"

using namespace test::columns;

namespace {

/// A user-defined activation, with sums of products that a compiler may or may not contract.
struct Cubic {
  static constexpr bool gated = false;
  template <class T>
  static T value(T x) {
    return x * x * x * T(0.3) + x * T(0.7) - x * x;
  }
  template <class T>
  static T derivative(T x) {
    return x * x * T(0.9) + T(0.7) - T(2) * x;
  }
};

/// The number of elements whose bits differ from those of the first in their row.
template <class T>
Index unlike(const Result<T>& result) {
  const Index columns = result.columns, rows = std::ssize(result.values) / columns;
  Index count = 0;
  for (Index row = 0; row < rows; ++row) {
    for (Index column = result.skip + 1; column < columns; ++column) {
      const auto at = [&](Index place) {
        return &result.values[static_cast<std::size_t>(result.down ? place * rows + row : row * columns + place)];
      };
      count += std::memcmp(at(result.skip), at(column), sizeof(T)) != 0 ? 1 : 0;
    }
  }
  return count;
}

/// All operations on `columns` columns.
template <class S, class Check>
void each(cpu::Device& device, Operands& operands, Index columns, const Check& check) {
  using C = compute_t<S>;
  each_elementwise<S>(device, operands, columns, check);
  each_norm<S>(device, operands, columns, check);
  for (const double limit : {3.0, 2000.0}) {
    each_activation<Relu, C>(device, operands, columns, limit, check);
    each_activation<SquaredRelu, C>(device, operands, columns, limit, check);
    each_activation<Gelu, C>(device, operands, columns, limit, check);
    each_activation<Silu, C>(device, operands, columns, limit, check);
    each_activation<SwiGlu, C>(device, operands, columns, limit, check);
    each_activation<GeGlu, C>(device, operands, columns, limit, check);
    each_activation<Cubic, C>(device, operands, columns, limit, check);
  }
  each_activation<Relu, C>(device, operands, columns, 1e25, check);
  each_activation<Gelu, C>(device, operands, columns, 1e25, check);
  each_activation<Silu, C>(device, operands, columns, 1e25, check);
  for (const Index rows : {1, 3, 40}) each_product<S>(device, operands, columns, rows, check);
  each_rotation<C>(device, operands, columns, check);
  each_convolution<S>(device, operands, columns, check);
  each_scan<S>(device, operands, columns, check);
  for (const double limit : {1.0, 100.0}) each_cross_entropy<S>(device, operands, columns, limit, check);
}

/// Those with a compile-time number of columns: more than any packet's lanes, and odd.
template <class C, class Check>
void each_of_fixed_width(cpu::Device& device, Operands& operands, const Check& check) {
  for (const Index read : {0, 5}) {
    for (const double gradient : {0.0, 30.0}) each_attention<C, 19>(device, operands, read, gradient, check);
  }
  for (const double limit : {3.0, 1000.0}) each_routing<C, 19>(device, operands, limit, check);
}

const std::vector<Index> lengths = {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 47, 70, 131};

}  // namespace

TEMPLATE_TEST_CASE("equal columns give equal bits at any position", "[cpu][columns]", float, double, bfloat16) {
  cpu::Device device;
  std::set<std::string> wrong;
  const auto check = [&](const std::string& name, const auto& call, const auto&... results) {
    call();
    if ((Index(0) + ... + unlike(results)) > 0) wrong.insert(name);
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Operands operands(Draw::alike, seed);
    for (const Index columns : lengths) each<TestType>(device, operands, columns, check);
    each_of_fixed_width<compute_t<TestType>>(device, operands, check);
  }
  CHECK(wrong == std::set<std::string>{});
}

TEMPLATE_TEST_CASE("operations raise no floating-point exception", "[cpu][columns]", float, double, bfloat16) {
  cpu::Device device;
  std::set<std::string> wrong;
  const auto check = [&](const std::string& name, const auto& call, const auto&...) {
    std::feclearexcept(FE_ALL_EXCEPT);
    call();
    for (const auto& [flag, title] :
         {std::pair(FE_INVALID, "invalid"), {FE_DIVBYZERO, "division by 0"}, {FE_OVERFLOW, "overflow"}}) {
      if (std::fetestexcept(flag) != 0) wrong.insert(name + ": " + title);
    }
  };
  for (const Draw draw : {Draw::zeros, Draw::edges, Draw::ordinary}) {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      Operands operands(draw, seed);
      for (const Index columns : lengths) each<TestType>(device, operands, columns, check);
      each_of_fixed_width<compute_t<TestType>>(device, operands, check);
    }
  }
  CHECK(wrong == std::set<std::string>{});
}
