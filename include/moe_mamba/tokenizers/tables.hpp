#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/standard.hpp"

/// Hash tables for a tokenizer: open addressing with linear probing, growth by doubling, no removal. A per-table seed
/// prevents files from choosing keys that collide; no result depends on it. An insertion that runs out of memory leaves
/// the table unchanged.
namespace moe_mamba::inline v0_2::detail {

inline std::uint64_t mix_bits(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t table_seed(const void* table) {
  const auto time = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  return mix_bits(time ^ 0x9E3779B97F4A7C15u, reinterpret_cast<std::uintptr_t>(table) | 1) | 1;
}

inline std::uint64_t hash_string(std::string_view text, std::uint64_t seed) {
  constexpr std::uint64_t factor = 0xA0761D6478BD642Fu;
  const char* at = text.data();
  std::size_t left = text.size();
  std::uint64_t hash = seed ^ text.size(), word = 0;
  for (; left > 8; at += 8, left -= 8) {
    std::memcpy(&word, at, 8);
    hash = mix_bits(hash ^ word, factor);
  }
  word = 0;
  if (left >= 4) {
    std::uint32_t low, high;
    std::memcpy(&low, at, 4);
    std::memcpy(&high, at + left - 4, 4);
    word = static_cast<std::uint64_t>(high) << 32 | low;
  } else if (left > 0) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint64_t>(static_cast<unsigned char>(at[i])); };
    word = byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16;
  }
  return mix_bits(hash ^ word, factor ^ seed);
}

/// Concatenated byte strings, to construct a table from.
struct ByteStrings {
  std::vector<char> bytes;
  std::vector<std::size_t> ends;  // end offset of each

  void push_back(std::string_view text) {
    bytes.insert(bytes.end(), text.begin(), text.end());
    ends.push_back(bytes.size());
  }
};

/// Thrown for duplicate strings: the first one.
struct DuplicateString {
  std::string text;
};

/// Byte strings, numbered in order of insertion.
class StringTable {
 public:
  static constexpr std::uint32_t none = 0xffffffff;

  StringTable() : seed_(table_seed(this)), slots_(16) {}
  /// Inserts distinct strings; throws DuplicateString if they are not. Faster than repeated insert(), because the table
  /// is allocated once and its slots are prefetched.
  explicit StringTable(ByteStrings strings)
      : seed_(table_seed(this)), bytes_(std::move(strings.bytes)), ends_(std::move(strings.ends)) {
    slots_ = slots_of_all(std::bit_ceil(std::max<std::size_t>(2 * size(), 16)));
  }

  std::size_t size() const { return ends_.size(); }

  std::string_view operator[](std::size_t index) const {
    const std::size_t begin = index == 0 ? 0 : ends_[index - 1];
    return {bytes_.data() + begin, ends_[index] - begin};
  }

  /// The number of a string, or `none`.
  std::uint32_t find(std::string_view text) const { return slots_[slot_of(text, hash_string(text, seed_))].index; }

  /// The number of a string and whether it is new.
  std::pair<std::uint32_t, bool> insert(std::string_view text) {
    const std::uint64_t hash = hash_string(text, seed_);
    std::size_t at = slot_of(text, hash);
    if (slots_[at].index != none) return {slots_[at].index, false};
    if ((size() + 1) * 2 > slots_.size()) {
      slots_ = slots_of_all(slots_.size() * 2);
      at = slot_of(text, hash);
    }
    const auto index = static_cast<std::uint32_t>(size());
    bytes_.resize(ends_.empty() ? 0 : ends_.back());  // drops remains of a call that ran out of memory
    bytes_.insert(bytes_.end(), text.begin(), text.end());
    ends_.push_back(bytes_.size());
    slots_[at] = {static_cast<std::uint32_t>(hash >> 32), index};
    return {index, true};
  }

 private:
  struct Slot {
    std::uint32_t tag = 0;  // the upper half of the hash, so that few strings are compared
    std::uint32_t index = none;
  };

  std::size_t slot_of(std::string_view text, std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
      const Slot& slot = slots_[at];
      if (slot.index == none || (slot.tag == tag && (*this)[slot.index] == text)) return at;
    }
  }

  /// A table of all strings. Slots are prefetched several strings ahead.
  std::vector<Slot> slots_of_all(std::size_t count) const {
    constexpr std::size_t ahead = 16;
    std::vector<Slot> slots(count);
    const std::size_t mask = slots.size() - 1;
    std::array<std::uint64_t, ahead> hashes{};
    for (std::size_t next = 0; next < size() + ahead; ++next) {
      std::uint64_t& hash = hashes[next % ahead];
      if (next >= ahead) {
        const std::size_t index = next - ahead;
        const auto tag = static_cast<std::uint32_t>(hash >> 32);
        std::size_t at = hash & mask;
        for (; slots[at].index != none; at = (at + 1) & mask) {
          if (slots[at].tag == tag && (*this)[slots[at].index] == (*this)[index]) {
            throw DuplicateString{std::string((*this)[index])};
          }
        }
        slots[at] = {tag, static_cast<std::uint32_t>(index)};
      }
      if (next < size()) {
        hash = hash_string((*this)[next], seed_);
        __builtin_prefetch(slots.data() + (hash & mask), 1);
      }
    }
    return slots;
  }

  std::uint64_t seed_;
  std::vector<char> bytes_;
  std::vector<std::size_t> ends_;
  std::vector<Slot> slots_;
};

/// Maps pairs of numbers to pairs of numbers.
class PairTable {
 public:
  struct Value {
    std::uint32_t first = none, second = none;
  };
  static constexpr std::uint32_t none = 0xffffffff;

  PairTable() : seed_(table_seed(this)), slots_(16) {}

  /// The value of a pair; both numbers are `none` if there is none.
  Value find(std::uint32_t left, std::uint32_t right) const { return slots_[slot_of(key_of(left, right))].value; }

  /// Sets the value of a pair, which must not be (none, none).
  void set(std::uint32_t left, std::uint32_t right, Value value) {
    const std::uint64_t key = key_of(left, right);
    std::size_t at = slot_of(key);
    if (slots_[at].key != key) {
      if ((size_ + 1) * 2 > slots_.size()) {
        const std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
        for (const Slot& slot : old) {
          if (slot.key != no_key) slots_[slot_of(slot.key)] = slot;
        }
        at = slot_of(key);
      }
      ++size_;
    }
    slots_[at] = {key, value};
  }

 private:
  static constexpr std::uint64_t no_key = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = no_key;
    Value value;
  };

  static std::uint64_t key_of(std::uint32_t left, std::uint32_t right) {
    return static_cast<std::uint64_t>(left) << 32 | right;
  }
  std::size_t slot_of(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = mix_bits(key ^ seed_, 0xE7037ED1A0B428DBu) & mask;
    while (slots_[at].key != key && slots_[at].key != no_key) at = (at + 1) & mask;
    return at;
  }

  std::uint64_t seed_;
  std::size_t size_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace moe_mamba::inline v0_2::detail
