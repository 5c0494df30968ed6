#include "moe_mamba/cpu/dispatch.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "moe_mamba/reference/dispatch.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// Assignments of T tokens to K different experts each, and their slots.
struct Grouping {
  Index tokens, top_k, expert_count;
  std::vector<Index> experts, slots, source, offsets;
  double dropped = NAN;

  /// The first `silent` experts get no token.
  Grouping(Index tokens_, Index top_k_, Index expert_count_, Index silent = 0)
      : tokens(tokens_), top_k(top_k_), expert_count(expert_count_) {
    Random random(Seed{17});
    std::vector<Index> all(static_cast<std::size_t>(expert_count - silent));
    std::iota(all.begin(), all.end(), silent);
    for (Index t = 0; t < tokens; ++t) {
      for (Index k = 0; k < top_k; ++k) {
        const auto other = random.below(static_cast<std::uint64_t>(std::ssize(all) - k));
        std::swap(all[static_cast<std::size_t>(k)], all[static_cast<std::size_t>(k) + other]);
        experts.push_back(all[static_cast<std::size_t>(k)]);
      }
    }
    slots.assign(experts.size(), -77);
    source.assign(experts.size(), -77);
    offsets.assign(static_cast<std::size_t>(expert_count + 1), -77);
  }

  template <class Device>
  void run(Device& device, Index capacity) {
    group_tokens(device, GroupTokens{tokens, top_k, expert_count, capacity, experts.data(), slots.data(), source.data(),
                                     offsets.data(), &dropped});
  }

  Index kept() const { return offsets.back(); }
};

template <class C>
struct Combining {
  std::vector<C> x, gathered, y, gates, out, dout, dy, dgates;
  Index width;

  Combining(const Grouping& group, Index width_) : width(width_) {
    x = test::uniform<C>(group.tokens * width, 1);
    gathered = test::poison<C>(group.kept() * width);
    y = test::uniform<C>(group.kept() * width, 2);
    gates = test::uniform<C>(group.tokens * group.top_k, 3, 0, 1);
    out = test::uniform<C>(group.tokens * width, 4);
    dout = test::uniform<C>(group.tokens * width, 5);
    dy = test::poison<C>(group.kept() * width);
    dgates = test::poison<C>(group.tokens * group.top_k);
  }

  template <class Device>
  void run(Device& device, const Grouping& group, Into into, bool gated) {
    const C* factors = gated ? gates.data() : nullptr;
    const auto of_rows = [&](std::vector<C>& values) { return matrix(values.data(), group.kept(), width); };
    const auto of_tokens = [&](std::vector<C>& values) { return matrix(values.data(), group.tokens, width); };
    gather_rows(device, Groups{group.offsets.data(), static_cast<Index>(group.offsets.size()) - 1}, of_tokens(x),
                group.source.data(), of_rows(gathered));
    combine_rows(device, of_rows(y), group.slots.data(), group.top_k, factors, of_tokens(out), into);
    combine_rows_backward(device, of_rows(y), group.slots.data(), group.top_k, factors, of_tokens(dout), of_rows(dy),
                          dgates.data());
  }
};

}  // namespace

TEST_CASE("tokens are grouped by expert, earliest first, and those over capacity are dropped", "[cpu][dispatch]") {
  cpu::Device device;
  reference::Device plain;
  for (const Index tokens : {0, 1, 2, 50, 333}) {
    for (const Index expert_count : {1, 2, 7, 32}) {
      for (const Index top_k : {Index(1), Index(2), expert_count}) {
        if (top_k > expert_count) continue;
        for (const Index capacity : {Index(0), Index(1), Index(3), tokens * top_k / expert_count, tokens}) {
          CAPTURE(tokens, expert_count, top_k, capacity);
          Grouping group(tokens, top_k, expert_count), expected = group;
          group.run(device, capacity);
          expected.run(plain, capacity);
          CHECK(group.slots == expected.slots);
          CHECK(group.source == expected.source);
          CHECK(group.offsets == expected.offsets);
          CHECK(group.dropped == expected.dropped);

          // The properties themselves, for both: counts add up, no group is over capacity, rows of a group are in the
          // order of tokens, and the dropped ones of an expert come after its kept ones.
          CHECK(double(group.kept()) + group.dropped == double(tokens * top_k));
          std::vector<Index> next(group.offsets.begin(), group.offsets.end() - 1);
          for (std::size_t a = 0; a < group.experts.size(); ++a) {
            const auto expert = static_cast<std::size_t>(group.experts[a]);
            const bool full = next[expert] - group.offsets[expert] == capacity;
            REQUIRE(group.slots[a] == (full ? -1 : next[expert]));
            if (!full) REQUIRE(group.source[static_cast<std::size_t>(next[expert]++)] == static_cast<Index>(a) / top_k);
          }
          for (std::size_t e = 0; e < next.size(); ++e) CHECK(next[e] == group.offsets[e + 1]);
        }
      }
    }
  }
}

TEST_CASE("an expert without tokens has an empty group", "[cpu][dispatch]") {
  cpu::Device device;
  Grouping group(40, 2, 5, 3);
  group.run(device, 40);
  CHECK(group.offsets == std::vector<Index>{0, 0, 0, 0, 40, 80});
  CHECK(group.dropped == 0);
  group.run(device, 25);
  CHECK(group.offsets == std::vector<Index>{0, 0, 0, 0, 25, 50});
  CHECK(group.dropped == 30);
}

TEMPLATE_TEST_CASE("gathering and combining rows agree with the reference", "[cpu][dispatch]", float, double) {
  cpu::Device device;
  reference::Device plain;
  // A sum of at most 5 products, and a product of rows of at most 300 elements that may cancel.
  const double tolerance = sizeof(TestType) == 8 ? 2e-15 : 1e-6;
  for (const Index tokens : {0, 1, 3, 64}) {
    for (const Index top_k : {1, 2, 5}) {
      for (const Index capacity : {0, 1, 20, 64}) {
        for (const Index width : {1, 7, 8, 33, 300}) {
          for (const Into into : {Into::assign, Into::add}) {
            for (const bool gated : {true, false}) {
              Grouping group(tokens, top_k, 5);
              group.run(device, capacity);
              Combining<TestType> actual(group, width);
              Combining<double> expected(group, width);
              actual.run(device, group, into, gated);
              expected.run(plain, group, into, gated);
              CAPTURE(tokens, top_k, capacity, width, gated);
              CHECK(test::relative_error(actual.gathered, expected.gathered) == 0);
              CHECK(test::relative_error(actual.out, expected.out) <= tolerance);
              CHECK(test::relative_error(actual.dy, expected.dy) <= tolerance);
              CHECK(test::relative_error(actual.dgates, expected.dgates) <= tolerance);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("gradients of the reference's combining agree with finite differences", "[reference][dispatch]") {
  reference::Device device;
  Grouping group(6, 2, 3);
  group.run(device, 3);
  REQUIRE(group.dropped > 0);
  Combining<double> rows(group, 4);
  rows.run(device, group, Into::assign, true);
  const auto loss = [&] {
    combine_rows(device, matrix(rows.y.data(), group.kept(), 4), group.slots.data(), 2, rows.gates.data(),
                 matrix(rows.out.data(), 6, 4), Into::assign);
    return std::inner_product(rows.out.begin(), rows.out.end(), rows.dout.begin(), 0.0);
  };
  std::vector<double> dy, dgates;
  for (auto& element : rows.y) dy.push_back(test::finite_difference(element, 1e-2, loss));
  for (auto& gate : rows.gates) dgates.push_back(test::finite_difference(gate, 1e-2, loss));
  CHECK(test::relative_error(rows.dy, dy) < 1e-7);
  CHECK(test::relative_error(rows.dgates, dgates) < 1e-7);
}

TEST_CASE("tokens gathered and combined with gates that add up to one are unchanged", "[cpu][dispatch]") {
  cpu::Device device(Threads{2});
  Grouping group(500, 4, 9);
  group.run(device, 500);
  Combining<float> rows(group, 100);
  std::fill(rows.gates.begin(), rows.gates.end(), 0.25f);
  rows.run(device, group, Into::assign, true);
  combine_rows(device, matrix(rows.gathered.data(), group.kept(), 100), group.slots.data(), 4, rows.gates.data(),
               matrix(rows.out.data(), 500, 100), Into::assign);
  CHECK(rows.out == rows.x);
}

TEST_CASE("gathering and combining give the same bits with 1, 2 and 3 threads", "[cpu][dispatch]") {
  cpu::Device one;
  Grouping group(700, 3, 8);
  group.run(one, 200);
  Combining<float> expected(group, 129);
  expected.run(one, group, Into::add, true);
  for (const int threads : {2, 3}) {
    cpu::Device many(Threads{threads});
    Combining<float> actual(group, 129);
    actual.run(many, group, Into::add, true);
    CHECK(actual.gathered == expected.gathered);
    CHECK(actual.out == expected.out);
    CHECK(actual.dy == expected.dy);
    CHECK(actual.dgates == expected.dgates);
  }
}
