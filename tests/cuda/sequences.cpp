// The tables of packed sequences in which kernels find their blocks, as far as they can be tested on the host.
#include "moe_mamba/cuda/common/sequences.hpp"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/cuda/causal_convolution/sequence.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using cuda::detail::convolution_chunks;
using cuda::detail::LaunchSequences;
using cuda::detail::PackedSequence;
using cuda::detail::SequenceKind;
using cuda::detail::SequenceTable;

namespace {

using Table = SequenceTable<PackedSequence>;
constexpr Index tile = 64;

/// Random lengths: zero, one, and those around a tile.
std::vector<Index> random_lengths(Random& random, std::size_t count) {
  constexpr Index edges[] = {0, 1, 2, tile - 1, tile, tile + 1, 3 * tile + 5};
  std::vector<Index> lengths(count);
  for (Index& length : lengths) length = random.below(3) == 0 ? edges[random.below(7)] : Index(random.below(200));
  return lengths;
}

Index tiles_of(const PackedSequence& sequence) { return ceiling_divide(sequence.length, tile); }

}  // namespace

TEST_CASE("Every block of a packed launch finds its sequence", "[cuda]") {
  static_assert(sizeof(Table) <= 4096 && Table::most >= 128);
  Random random(Seed{3});
  for (int repeat = 0; repeat < 300; ++repeat) {
    const auto lengths = random_lengths(random, 1 + random.below(static_cast<std::uint64_t>(Table::most)));
    const Table table(Shape::packed(lengths), tiles_of);
    const LaunchSequences<PackedSequence> sequences{.count = table.count, .packed = table.of};
    REQUIRE(static_cast<std::size_t>(table.count) == lengths.size());
    Index row = 0;
    unsigned block = 0;
    std::vector<std::pair<Index, Index>> runs;
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      const Index sequence = static_cast<Index>(b);
      CHECK(sequences.row_of<SequenceKind::packed>(sequence) == row);
      CHECK(sequences.length_of<SequenceKind::either>(sequence) == lengths[b]);
      const auto tiles = static_cast<unsigned>(ceiling_divide(lengths[b], tile));
      for (unsigned own = 0; own < tiles; ++own) {
        const auto place = sequences.at<SequenceKind::packed>(block + own);
        REQUIRE(place.sequence == sequence);
        CHECK((place.row == row && place.length == lengths[b] && place.block == own));
      }
      if (tiles > 0) runs.emplace_back(block, block + tiles);
      row += lengths[b];
      block += tiles;
    }
    CHECK(table.blocks == block);
    sequences.each_run_of_blocks(block, [&](Index begin, Index end) {
      REQUIRE(!runs.empty());
      CHECK(runs.front() == std::pair(begin, end));
      runs.erase(runs.begin());
    });
    CHECK(runs.empty());
  }
}

TEST_CASE("Every block of equally long sequences finds its sequence", "[cuda]") {
  const LaunchSequences<PackedSequence> sequences{.length = 130, .blocks = 3};
  for (unsigned block = 0; block < 12; ++block) {
    const auto place = sequences.at<SequenceKind::equal>(block);
    CHECK((place.sequence == block / 3 && place.row == block / 3 * 130 && place.length == 130));
    CHECK(place.block == block % 3);
    CHECK(sequences.at<SequenceKind::either>(block).row == place.row);
  }
  int calls = 0;
  sequences.each_run_of_blocks(12, [&](Index begin, Index end) { calls += begin == 0 && end == 12 ? 1 : 100; });
  CHECK(calls == 1);
}

TEST_CASE("Packed sequences are divided into groups that fit", "[cuda]") {
  Random random(Seed{4});
  for (const std::size_t count : {1u, 2u, 128u, 1000u}) {
    for (const Index room : {1, 500, 1'000'000}) {
      for (const Index most : {1, 7, 100}) {
        const auto lengths = random_lengths(random, count);
        Index sequence = 0, row = 0;
        cuda::detail::for_sequence_groups(
            Shape::packed(lengths), most, [](Index length) { return length; }, [&](Index sum) { return sum <= room; },
            [&](const SequenceRun& run) {
              CHECK(run.sequence == sequence);
              CHECK(run.row == row);
              REQUIRE((run.shape.batch >= 1 && run.shape.batch <= most));
              CHECK((run.shape.batch == 1) == (run.shape.lengths == nullptr));
              for (Index b = 0; b < run.shape.batch; ++b) {
                CHECK(run.shape.length_of(b) == lengths[static_cast<std::size_t>(sequence + b)]);
              }
              const Index tokens = run.shape.tokens();
              CHECK((run.shape.batch == 1 || tokens <= room));
              sequence += run.shape.batch;
              row += tokens;
              // One more would have been too many.
              if (sequence < static_cast<Index>(count) && run.shape.batch < most) {
                CHECK(tokens + lengths[static_cast<std::size_t>(sequence)] > room);
              }
            });
        CHECK(sequence == static_cast<Index>(count));
        CHECK(row == std::accumulate(lengths.begin(), lengths.end(), Index{0}));
      }
    }
  }
  int calls = 0;
  const Index none[] = {1};
  const auto all = [](Index) { return true; };
  const auto count_calls = [&](const SequenceRun& run) { calls += run.shape == Shape{5, 7} ? 1 : 100; };
  cuda::detail::for_sequence_groups(
      {5, 7}, 2, [](Index length) { return length; }, all, count_calls);
  CHECK(calls == 1);
  cuda::detail::for_sequence_groups(
      Shape::packed(std::span(none, 0)), 2, [](Index length) { return length; }, all, count_calls);
  CHECK(calls == 1);
}

TEST_CASE("An empty sequence has a chunk of a convolution, as its state is saved", "[cuda]") {
  const std::vector<Index> lengths{0, 1, 64, 65, 0};
  CHECK(convolution_chunks(Shape::packed(lengths), 64) == 6);
  CHECK(convolution_chunks(Shape{3, 0}, 64) == 3);
  CHECK(convolution_chunks(Shape{3, 65}, 64) == 6);
}
