#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/standard.hpp"

/// Hash tables for a tokenizer: open addressing with linear probing, growth by doubling, no removal. A per-table seed
/// prevents files from choosing keys that collide; no result depends on it. An insertion that runs out of memory leaves
/// the table unchanged.
///
/// Once a table outgrows the caches of a processor, each access waits for memory. What is accessed many times in a row is
/// therefore done in groups: the slots of a whole group are prefetched first, so that their waits overlap (Chen et al.
/// 2007, "Improving hash join performance through prefetching").
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

/// How many accesses to a table overlap.
inline constexpr std::size_t table_group = 64;

/// Concatenated byte strings.
struct ByteStrings {
  std::vector<char> bytes;
  std::vector<std::size_t> ends;  // end offset of each

  std::size_t size() const { return ends.size(); }
  std::size_t begin_of(std::size_t index) const { return index == 0 ? 0 : ends[index - 1]; }
  std::string_view operator[](std::size_t index) const {
    const std::size_t begin = begin_of(index);
    return {bytes.data() + begin, ends[index] - begin};
  }

  void push_back(std::string_view text) {
    bytes.resize(begin_of(size()));  // drops remains of a call that ran out of memory
    bytes.insert(bytes.end(), text.begin(), text.end());
    ends.push_back(bytes.size());
  }
  void reserve(std::size_t count, std::size_t total_bytes) {
    ends.reserve(count);
    bytes.reserve(total_bytes);
  }
  void clear() {
    bytes.clear();
    ends.clear();
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
  explicit StringTable(ByteStrings strings) : seed_(table_seed(this)), strings_(std::move(strings)) {
    slots_ = slots_of_all(std::bit_ceil(std::max<std::size_t>(2 * size(), 16)));
  }

  std::size_t size() const { return strings_.size(); }
  std::size_t bytes() const { return strings_.bytes.size(); }  // of all strings
  std::string_view operator[](std::size_t index) const { return strings_[index]; }

  /// The number of a string, or `none`.
  std::uint32_t find(std::string_view text) const { return slots_[slot_of(text, hash_string(text, seed_))].index; }

  /// The numbers of all texts, in order, or `none`. Faster than repeated find().
  void find_all(const ByteStrings& texts, std::vector<std::uint32_t>& numbers) const {
    numbers.resize(texts.size());
    std::array<std::uint64_t, table_group> hashes;
    for (std::size_t begin = 0; begin < texts.size(); begin += table_group) {
      const std::size_t count = std::min(table_group, texts.size() - begin);
      std::uint32_t* number = numbers.data() + begin;
      for (std::size_t i = 0; i < count; ++i) {
        hashes[i] = hash_string(texts[begin + i], seed_);
        __builtin_prefetch(slots_.data() + (hashes[i] & (slots_.size() - 1)));
      }
      for (std::size_t i = 0; i < count; ++i) {
        number[i] = likely_number(hashes[i]);
        if (number[i] != none) __builtin_prefetch(strings_.ends.data() + number[i]);
      }
      for (std::size_t i = 0; i < count; ++i) {
        if (number[i] != none) __builtin_prefetch(strings_.bytes.data() + strings_.begin_of(number[i]));
      }
      for (std::size_t i = 0; i < count; ++i) number[i] = slots_[slot_of(texts[begin + i], hashes[i])].index;
    }
  }

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
    strings_.push_back(text);
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

  /// The number of the first string whose tag is that of a hash, or `none`. It is the string with that hash, if there is
  /// one, unless two have the same tag.
  std::uint32_t likely_number(std::uint64_t hash) const {
    const std::size_t mask = slots_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(hash >> 32);
    std::size_t at = hash & mask;
    while (slots_[at].index != none && slots_[at].tag != tag) at = (at + 1) & mask;
    return slots_[at].index;
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
  ByteStrings strings_;
  std::vector<Slot> slots_;
};

/// Maps pairs of numbers to pairs of numbers.
class PairTable {
 public:
  struct Value {
    std::uint32_t first = none, second = none;
  };
  struct Entry {
    std::uint32_t left, right;
    Value value;
  };
  static constexpr std::uint32_t none = 0xffffffff;

  /// Empty, with room for a number of pairs.
  explicit PairTable(std::size_t expected = 0)
      : seed_(table_seed(this)), slots_(std::bit_ceil(std::max<std::size_t>(2 * expected, 16))) {}

  /// Size in memory.
  std::size_t bytes() const { return slots_.size() * sizeof(Slot); }

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

  /// Sets many pairs in order. Faster than repeated set().
  void set_all(std::span<const Entry> entries) {
    for (std::size_t begin = 0; begin < entries.size(); begin += table_group) {
      const auto group = entries.subspan(begin, std::min(table_group, entries.size() - begin));
      for (const Entry& entry : group) prefetch(entry.left, entry.right);
      for (const Entry& entry : group) set(entry.left, entry.right, entry.value);
    }
  }

  /// Prefetches what find() and set() of a pair access.
  void prefetch(std::uint32_t left, std::uint32_t right) const {
    __builtin_prefetch(slots_.data() + first_slot(key_of(left, right)));
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
  std::size_t first_slot(std::uint64_t key) const {
    return mix_bits(key ^ seed_, 0xE7037ED1A0B428DBu) & (slots_.size() - 1);
  }
  std::size_t slot_of(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = first_slot(key);
    while (slots_[at].key != key && slots_[at].key != no_key) at = (at + 1) & mask;
    return at;
  }

  std::uint64_t seed_;
  std::size_t size_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace moe_mamba::inline v0_2::detail
