#include "moe_mamba/cpu/packet.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/cpu/packet_access.hpp"
#include "moe_mamba/cpu/packet_shuffle.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using cpu::lanes;
using cpu::load;
using cpu::Packet;
using cpu::store;

namespace {

template <class C>
constexpr std::size_t width = static_cast<std::size_t>(lanes<Packet<C>>);

/// The bits of a number, with all NaNs equal: which of two NaNs a sum returns is unspecified.
template <class C>
std::uint64_t bits(C value) {
  if (std::isnan(value)) return ~std::uint64_t{0};
  if constexpr (sizeof(C) == 4) {
    return std::bit_cast<std::uint32_t>(value);
  } else {
    return std::bit_cast<std::uint64_t>(value);
  }
}

/// Values of every kind, many of each, beginning with the special ones.
template <class C>
std::vector<C> samples(std::uint64_t seed) {
  using Limits = std::numeric_limits<C>;
  std::vector<C> values{
      C(0),          C(-0.0),        C(1),          C(-1),          Limits::infinity(),   -Limits::infinity(),
      Limits::max(), -Limits::max(), Limits::min(), -Limits::min(), Limits::denorm_min(), Limits::quiet_NaN()};
  Random random(Seed{seed});
  while (values.size() < 1024) {
    values.push_back(static_cast<C>(random.uniform(-1, 1) * std::exp2(random.uniform(-60, 60))));
  }
  for (std::size_t i = values.size() - 1; i > 0; --i) {
    std::swap(values[i], values[static_cast<std::size_t>(random.uniform() * static_cast<double>(i + 1))]);
  }
  return values;
}

/// Checks that f gives, in each lane of a packet and in a packet of one lane, what `expected` gives for a number.
template <class C, class F, class Expected>
void check_lanes(const F& f, const Expected& expected) {
  const auto a = samples<C>(1), b = samples<C>(2), c = samples<C>(3);
  bool same = true;
  for (std::size_t first = 0; first < a.size(); first += width<C>) {
    C result[width<C>];
    store(result, f(load<Packet<C>>(&a[first]), load<Packet<C>>(&b[first]), load<Packet<C>>(&c[first])));
    for (std::size_t i = 0; i < width<C>; ++i) {
      const C x = a[first + i], y = b[first + i], z = c[first + i];
      using One = Packet<C, 1>;
      same = same && bits(result[i]) == bits<C>(expected(x, y, z)) &&
             bits(result[i]) == bits(f(One(x), One(y), One(z)).native);
    }
  }
  CHECK(same);
}

/// Keeps a compiler from contracting what a test expects to be rounded twice.
template <class C>
C rounded(C value) {
  volatile C kept = value;
  return kept;
}

}  // namespace

TEMPLATE_TEST_CASE("operations on packets are IEEE operations in each lane", "[cpu][packet]", float, double) {
  using C = TestType;
  check_lanes<C>([](auto a, auto b, auto) { return a + b; }, [](C a, C b, C) { return a + b; });
  check_lanes<C>([](auto a, auto b, auto) { return a - b; }, [](C a, C b, C) { return a - b; });
  check_lanes<C>([](auto a, auto b, auto) { return a * b; }, [](C a, C b, C) { return a * b; });
  check_lanes<C>([](auto a, auto b, auto) { return a / b; }, [](C a, C b, C) { return a / b; });
  check_lanes<C>([](auto a, auto, auto) { return -a; }, [](C a, C, C) { return -a; });
  check_lanes<C>([](auto a, auto, auto) { return abs(a); }, [](C a, C, C) { return std::abs(a); });
  check_lanes<C>([](auto a, auto, auto) { return sqrt(a); }, [](C a, C, C) { return std::sqrt(a); });
  check_lanes<C>([](auto a, auto b, auto c) { return select(a < b, b, c); },
                 [](C a, C b, C c) { return a < b ? b : c; });
  check_lanes<C>([](auto a, auto b, auto c) { return select(a == a, b, c); },
                 [](C a, C b, C c) { return std::isnan(a) ? c : b; });
}

TEMPLATE_TEST_CASE("max and min of packets are std::max and std::min, NaN and signs of zero included", "[cpu][packet]",
                   float, double) {
  using C = TestType;
  check_lanes<C>([](auto a, auto b, auto) { return max(a, b); }, [](C a, C b, C) { return std::max(a, b); });
  check_lanes<C>([](auto a, auto b, auto) { return min(a, b); }, [](C a, C b, C) { return std::min(a, b); });
  check_lanes<C>([](auto a, auto, auto) { return max(a, 0); }, [](C a, C, C) { return std::max(a, C(0)); });
  check_lanes<C>([](auto a, auto, auto) { return min(a, C(-2)); }, [](C a, C, C) { return std::min(a, C(-2)); });
}

TEMPLATE_TEST_CASE("products and sums of packets are rounded separately, and fma as on the machine", "[cpu][packet]",
                   float, double) {
  using C = TestType;
  check_lanes<C>([](auto a, auto b, auto c) { return a * b + c; }, [](C a, C b, C c) { return rounded(a * b) + c; });
  check_lanes<C>([](auto a, auto b, auto c) { return c - a * b; }, [](C a, C b, C c) { return c - rounded(a * b); });
  check_lanes<C>([](auto a, auto b, auto c) { return fma(a, b, c); },
                 [](C a, C b, C c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
                   return std::fma(a, b, c);
#else
                   return rounded(a * b) + c;
#endif
                 });
}

TEMPLATE_TEST_CASE("sums over lanes have a fixed order, and the largest lane is found", "[cpu][packet]", float,
                   double) {
  using C = TestType;
  const auto a = samples<C>(4);
  for (std::size_t first = 0; first < a.size(); first += width<C>) {
    std::vector<C> halves(a.begin() + static_cast<std::ptrdiff_t>(first),
                          a.begin() + static_cast<std::ptrdiff_t>(first + width<C>));
    const auto packet = load<Packet<C>>(halves.data());
    if (std::none_of(halves.begin(), halves.end(), [](C value) { return std::isnan(value); })) {
      CHECK(horizontal_max(packet) == *std::max_element(halves.begin(), halves.end()));
    }
    for (std::size_t half = width<C> / 2; half > 0; half /= 2) {
      for (std::size_t i = 0; i < half; ++i) halves[i] = halves[i] + halves[i + half];
    }
    CHECK(bits(horizontal_sum(packet)) == bits(halves[0]));
  }
}

TEMPLATE_TEST_CASE("squares of packets are transposed, and their lanes added up", "[cpu][packet]", float, double) {
  using C = TestType;
  constexpr std::size_t size = width<C>;
  Packet<C> square[size], rows[size];
  for (std::size_t i = 0; i < size; ++i) {
    C row[size];
    for (std::size_t j = 0; j < size; ++j) row[j] = static_cast<C>(size * i + j);
    square[i] = rows[i] = load<Packet<C>>(row);
  }
  transpose(square);
  C sums[size];
  store(sums, sums_over_lanes(rows));
  for (std::size_t j = 0; j < size; ++j) {
    C column[size];
    store(column, square[j]);
    for (std::size_t i = 0; i < size; ++i) CHECK(column[i] == static_cast<C>(size * i + j));
    CHECK(sums[j] == static_cast<C>(size * size * j + size * (size - 1) / 2));
  }
}

TEMPLATE_TEST_CASE("partial loads and stores touch their elements only", "[cpu][packet]", float, double) {
  using C = TestType;
  constexpr std::size_t size = width<C>;
  for (std::size_t count = 0; count <= size; ++count) {
    std::vector<C> exact(count, C(3)), to(size, C(5));  // reads past the end are left to sanitizers
    C read[size];
    store(read, cpu::load_partial<Packet<C>>(exact.data(), static_cast<Index>(count), C(7)));
    cpu::store_partial(to.data(), Packet<C>(C(9)), static_cast<Index>(count));
    for (std::size_t i = 0; i < size; ++i) {
      CHECK(read[i] == C(i < count ? 3 : 7));
      CHECK(to[i] == C(i < count ? 9 : 5));
    }
  }
}

TEMPLATE_TEST_CASE("stored elements are widened exactly", "[cpu][packet]", float, double) {
  using C = TestType;
  constexpr std::size_t size = width<C>;
  const auto values = samples<float>(5);
  for (std::size_t first = 0; first < values.size(); first += size) {
    bfloat16 stored[size];
    for (std::size_t i = 0; i < size; ++i) stored[i] = bfloat16(values[first + i]);
    C whole[size], partial[size], wide[size];
    store(whole, cpu::load_widened<Packet<C>>(stored));
    store(partial, cpu::load_widened_partial<Packet<C>>(stored, static_cast<Index>(size - 1)));
    for (std::size_t i = 0; i < size; ++i) {
      CHECK(bits(whole[i]) == bits(static_cast<C>(stored[i])));
      CHECK(bits(partial[i]) == bits(i + 1 < size ? static_cast<C>(stored[i]) : C(0)));
    }
    if constexpr (std::is_same_v<C, double>) {
      store(wide, cpu::load_as_double<Packet<C>>(&values[first]));
      for (std::size_t i = 0; i < size; ++i) CHECK(bits(wide[i]) == bits(static_cast<double>(values[first + i])));
    }
  }
}
