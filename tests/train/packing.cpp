// Sequences packed into a batch: added tokens may be part of the batch itself, and none is masked by mistake.
#include "moe_mamba/train/packing.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

bool equal(const PackedBatch& a, const PackedBatch& b) {
  return std::ranges::equal(a.batch().inputs, b.batch().inputs) &&
         std::ranges::equal(a.batch().targets, b.batch().targets) && std::ranges::equal(a.lengths(), b.lengths());
}

/// A part of some numbers, of at least `least` of them if there are as many.
template <class T>
std::span<const T> part(std::span<const T> values, std::size_t least, Random& random) {
  const std::size_t begin = static_cast<std::size_t>(random.below(values.size() - least + 1));
  return values.subspan(begin, least + static_cast<std::size_t>(random.below(values.size() - begin - least + 1)));
}

}  // namespace

TEST_CASE("parts of a batch may be added to it, as copies of them may", "[train]") {
  Random random(Seed{7});
  for (int run = 0; run < 200; ++run) {
    const std::vector<Token> first{3, 1, 4, 1, 5, 9, 2, 6};
    PackedBatch batch, twin;
    for (PackedBatch* const each : {&batch, &twin}) each->add(first);
    for (int added = 0; added < 8; ++added) {
      const std::span<const Token> inputs = batch.batch().inputs, targets = batch.batch().targets;
      switch (random.below(4)) {
        case 0: {
          const auto text = part(inputs, 2, random);
          const std::vector<Token> copy(text.begin(), text.end());
          batch.add(text);
          twin.add(copy);
          break;
        }
        case 1: {
          const std::vector<Token> copy(inputs.begin(), inputs.end()), goals(targets.begin(), targets.end());
          batch.add(inputs, targets);
          twin.add(copy, goals);
          break;
        }
        case 2: {
          const auto some = part(targets, 1, random);
          const std::vector<Token> copy(some.begin(), some.end());
          batch.add(copy, some);
          twin.add(copy, copy);
          break;
        }
        default: {
          const std::vector<Token> whole(inputs.begin(), inputs.end()), goals(targets.begin(), targets.end());
          const Shape all{1, batch.shape().total};
          batch.add_padded(inputs, targets, all, std::vector<Index>{all.length});
          twin.add_padded(whole, goals, all, std::vector<Index>{all.length});
          // One row per sequence, each padded to the longest.
          const auto lengths = batch.lengths();
          const Index most = *std::max_element(lengths.begin(), lengths.end());
          const std::vector<Index> copy(lengths.begin(), lengths.end());
          const std::vector<Token> rows(copy.size() * static_cast<std::size_t>(most), 5);
          const Shape shape{batch.size(), most};
          batch.add_padded(rows, rows, shape, lengths);
          twin.add_padded(rows, rows, shape, copy);
        }
      }
      REQUIRE(equal(batch, twin));
      if (batch.shape().total > 2000) break;
    }
  }
}

TEST_CASE("a text that ends with a negative number is refused, which would mask its last target", "[train]") {
  PackedBatch batch;
  const std::vector<Token> text{1, 2, 3, -1};
  CHECK_THROWS_AS(batch.add(text), std::out_of_range);
  CHECK_THROWS_WITH(batch.add(text), "the last token is -1; allowed: 0 or more");
  CHECK(batch.size() == 0);
  CHECK_NOTHROW(batch.add(std::span(text).first(3)));
  const std::vector<Token> inputs{1}, masked{masked_target};
  CHECK_NOTHROW(batch.add(inputs, masked));
}
