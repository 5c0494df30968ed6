// Grouped products whose rows go to places of their own.
#include <numeric>
#include <vector>

#include "moe_mamba/cpu/dispatch.hpp"
#include "moe_mamba/cpu/linear.hpp"
#include "moe_mamba/reference/linear.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// Rows in groups, of which row s goes to places[s] of `tokens` rows; some of these get none.
struct Scattering {
  std::vector<Index> offsets{0}, places, slots;
  Index groups, rows, tokens;

  Scattering(const std::vector<Index>& counts, Index unused) : groups(std::ssize(counts)) {
    for (const Index count : counts) offsets.push_back(offsets.back() + count);
    rows = offsets.back();
    tokens = rows + unused;
    std::vector<Index> order(static_cast<std::size_t>(tokens));
    std::iota(order.begin(), order.end(), 0);
    Random random(Seed{5});
    for (std::size_t i = order.size(); i > 1; --i) {
      std::swap(order[i - 1], order[random.below(static_cast<std::uint64_t>(i))]);
    }
    places.assign(order.begin(), order.begin() + rows);
    slots.assign(static_cast<std::size_t>(tokens), -1);
    for (Index s = 0; s < rows; ++s) slots[static_cast<std::size_t>(places[static_cast<std::size_t>(s)])] = s;
  }
};

template <class S, class C>
struct Products {
  std::vector<C> x, dy, y, dx, room;
  std::vector<S> weight;
  Index in, out;

  Products(const Scattering& to, Index in_, Index out_) : in(in_), out(out_) {
    x = test::uniform<C>(to.rows * in, 1);
    weight = test::uniform<S>(to.groups * out * in, 2);
    dy = test::uniform<C>(to.rows * out, 3);
    y = test::uniform<C>(to.tokens * out, 4);
    dx = test::uniform<C>(to.tokens * in, 5);
    room = test::poison<C>(to.rows * std::max(in, out));
  }

  template <class Device>
  void run(Device& device, const Scattering& to, Into into) {
    const Groups groups{to.offsets.data(), to.groups};
    const MatrixStack<const S> stack{weight.data(), out, in};
    grouped_linear(
        device, groups, matrix(x.data(), to.rows, in), stack,
        ScatteredRows<C>{matrix(y.data(), to.tokens, out), to.places.data(), matrix(room.data(), to.rows, out)});
    grouped_linear_backward_input(
        device, groups, matrix(dy.data(), to.rows, out), stack,
        ScatteredRows<C>{matrix(dx.data(), to.tokens, in), to.places.data(), matrix(room.data(), to.rows, in)}, into);
  }
};

const std::vector<std::vector<Index>> loads = {{},         {0, 0},       {1},          {0, 1, 0},  {0, 5, 0, 30, 7, 6},
                                               {0, 40, 0}, {1, 1, 1, 1}, {64, 65, 63}, {300, 0, 1}};

}  // namespace

TEMPLATE_TEST_CASE("scattered rows of grouped products agree with the reference", "[cpu][linear]", float, double) {
  using C = TestType;
  cpu::Device device;
  reference::Device plain;
  for (const auto& counts : loads) {
    for (const Index unused : {0, 3}) {
      for (const Into into : {Into::assign, Into::add}) {
        for (const auto& [in, out] : {std::pair<Index, Index>{1, 17}, {33, 50}, {16, 1}}) {
          CAPTURE(counts, unused, in, out);
          const Scattering to(counts, unused);
          Products<C, C> actual(to, in, out);
          Products<C, double> expected(to, in, out);
          actual.run(device, to, into);
          expected.run(plain, to, into);
          const double bound = 60 * double(std::numeric_limits<C>::epsilon());
          CHECK(test::relative_error(actual.y, expected.y) <= bound);
          CHECK(test::relative_error(actual.dx, expected.dx) <= bound);
        }
      }
    }
  }
}

TEST_CASE("scattered rows have the bits of rows in order that are combined", "[cpu][linear]") {
  for (const int threads : {1, 3}) {
    cpu::Device device{Threads{threads}};
    for (const auto& counts : loads) {
      for (const Into into : {Into::assign, Into::add}) {
        const Scattering to(counts, 0);
        Products<float, float> scattered(to, 37, 50), combined = scattered;
        scattered.run(device, to, into);
        const Groups groups{to.offsets.data(), to.groups};
        const MatrixStack<const float> stack{combined.weight.data(), 50, 37};
        const auto y = matrix(combined.room.data(), to.rows, 50), dx = matrix(combined.room.data(), to.rows, 37);
        grouped_linear(device, groups, matrix(combined.x.data(), to.rows, 37), stack, y);
        combine_rows(device, y, to.slots.data(), 1, nullptr, matrix(combined.y.data(), to.tokens, 50), Into::assign);
        grouped_linear_backward_input(device, groups, matrix(combined.dy.data(), to.rows, 50), stack, dx, Into::assign);
        combine_rows(device, dx, to.slots.data(), 1, nullptr, matrix(combined.dx.data(), to.tokens, 37), into);
        CAPTURE(threads, counts);
        CHECK(scattered.y == combined.y);
        CHECK(scattered.dx == combined.dx);
      }
    }
  }
}
