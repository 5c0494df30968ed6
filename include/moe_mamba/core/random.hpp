#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

#include "moe_mamba/core/annotation.hpp"

namespace moe_mamba::inline v0_2 {

/// The seed of random numbers. Equal seeds give equal bits.
struct Seed {
  std::uint64_t value = 0;
};

/// Four 32-bit words: the generator's counter and its output.
struct PhiloxBlock {
  std::uint32_t words[4];

  friend constexpr bool operator==(const PhiloxBlock&, const PhiloxBlock&) = default;
};

/// The counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
/// four words that depend only on key and counter. For host and device.
MOE_MAMBA_HOST_DEVICE constexpr PhiloxBlock philox(PhiloxBlock counter, std::uint64_t key) {
  auto key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter.words[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter.words[2];
    counter = {
        {static_cast<std::uint32_t>(product1 >> 32) ^ counter.words[1] ^ key0, static_cast<std::uint32_t>(product1),
         static_cast<std::uint32_t>(product0 >> 32) ^ counter.words[3] ^ key1, static_cast<std::uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// A stream of random numbers as a plain value: seed, stream and position are its whole state, so that it can be copied, stored
/// and continued. Different streams of one seed are independent.
class Random {
 public:
  constexpr Random() = default;
  MOE_MAMBA_HOST_DEVICE constexpr explicit Random(Seed seed, std::uint64_t stream = 0, std::uint64_t position = 0)
      : seed_(seed.value), stream_(stream), position_(position) {}

  constexpr std::uint64_t seed() const { return seed_; }
  constexpr std::uint64_t stream() const { return stream_; }
  /// The number of 64-bit words drawn so far.
  MOE_MAMBA_HOST_DEVICE constexpr std::uint64_t position() const { return position_; }

  /// 64 random bits.
  MOE_MAMBA_HOST_DEVICE constexpr std::uint64_t bits() {
    const PhiloxBlock block =
        philox({{static_cast<std::uint32_t>(position_), static_cast<std::uint32_t>(position_ >> 32),
                 static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)}},
               seed_);
    ++position_;
    return (std::uint64_t{block.words[1]} << 32) | block.words[0];
  }

  /// Uniform in [0, 1), a multiple of 2^-53.
  MOE_MAMBA_HOST_DEVICE constexpr double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

  /// Uniform in [low, high).
  constexpr double uniform(double low, double high) { return low + (high - low) * uniform(); }

  /// Uniform among 0 … bound - 1 (bound > 0), without bias: draws that fall into the incomplete last interval are
  /// redrawn.
  constexpr std::uint64_t below(std::uint64_t bound) {
    const std::uint64_t limit = std::uint64_t(0) - (std::uint64_t(0) - bound) % bound;
    std::uint64_t draw = bits();
    while (limit != 0 && draw >= limit) draw = bits();
    return draw % bound;
  }

  /// Standard normal, by Box and Muller's method; uses two words.
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

  /// Standard normal, redrawn until it is within ± `bound`.
  double truncated_normal(double bound) {
    double draw = normal();
    while (std::abs(draw) > bound) draw = normal();
    return draw;
  }

  friend constexpr bool operator==(const Random&, const Random&) = default;

 private:
  std::uint64_t seed_ = 0;
  std::uint64_t stream_ = 0;
  std::uint64_t position_ = 0;
};

}  // namespace moe_mamba::inline v0_2
