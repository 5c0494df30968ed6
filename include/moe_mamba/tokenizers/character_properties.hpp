#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/tokenizers/character_set.hpp"
#include "moe_mamba/tokenizers/unicode.hpp"
#include "moe_mamba/tokenizers/unicode_tables.hpp"

/// The sets of characters that regular expressions name: \p{Lu}, \p{Han}, [:alpha:].
namespace moe_mamba::inline v0_2::detail {

/// Parses the ranges of a table entry.
inline CharacterSet parse_ranges(std::string_view text) {
  std::vector<CharacterSet::Range> ranges;
  char32_t first = 0, number = 0;
  bool is_range = false;
  for (std::size_t i = 0; i <= text.size(); ++i) {
    const char c = i < text.size() ? text[i] : ' ';
    if (c == ' ') {
      ranges.push_back({is_range ? first : number, number});
      number = 0;
      is_range = false;
    } else if (c == '-') {
      first = std::exchange(number, 0);
      is_range = true;
    } else {
      number = number * 16 + static_cast<char32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
    }
  }
  return CharacterSet(std::move(ranges));
}

/// The simple case folding of a character: the same for all characters that differ in case only.
inline char32_t fold_case(char32_t c) {
  utf8proc_int32_t folded[4];
  int boundary = 0;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), folded, 4, UTF8PROC_CASEFOLD, &boundary);
  if (count == 1) return static_cast<char32_t>(folded[0]);
  constexpr char32_t dotted_i = 0x130;  // has no simple folding
  return c == dotted_i ? c : static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

/// Sets of characters by name. The constructor visits every code point, which takes some milliseconds.
class CharacterProperties {
 public:
  CharacterProperties() {
    std::array<std::vector<CharacterSet::Range>, category_names.size()> ranges;
    for (char32_t c = 0; c <= last_character; ++c) {
      auto& own = ranges[static_cast<std::size_t>(utf8proc_category(static_cast<utf8proc_int32_t>(c)))];
      if (!own.empty() && own.back().last + 1 == c) {
        own.back().last = c;
      } else {
        own.push_back({c, c});
      }
      if (c < last_cased && fold_case(c) != c) folds_.emplace_back(fold_case(c), c);
    }
    for (std::size_t i = 0; i < ranges.size(); ++i) categories_[i] = CharacterSet(std::move(ranges[i]));
    std::sort(folds_.begin(), folds_.end());
  }

  /// The set of that name, in any case and with or without spaces, '-' and '_'.
  std::optional<CharacterSet> find(std::string_view name) const;

  /// The set closed under simple case folding.
  CharacterSet fold(const CharacterSet& set) const {
    std::vector<CharacterSet::Range> ranges = set.ranges();
    for (std::size_t i = 0; i < folds_.size();) {
      const char32_t folded = folds_[i].first;
      std::size_t end = i;
      bool found = set.contains(folded);
      for (; end < folds_.size() && folds_[end].first == folded; ++end)
        found = found || set.contains(folds_[end].second);
      if (found) ranges.push_back({folded, folded});
      for (; i < end; ++i) {
        if (found) ranges.push_back({folds_[i].second, folds_[i].second});
      }
    }
    return CharacterSet(std::move(ranges));
  }

  /// The general categories whose names begin with `prefix`: "L", "Lu".
  CharacterSet category(std::string_view prefix) const {
    CharacterSet set;
    for (std::size_t i = 0; i < category_names.size(); ++i) {
      if (category_names[i].starts_with(prefix)) set = set | categories_[i];
    }
    return set;
  }
  CharacterSet table(std::string_view name) const {
    const auto at = std::find_if(property_tables.begin(), property_tables.end(),
                                 [&](const NamedRanges& table) { return table.name == name; });
    return parse_ranges(at->ranges);
  }
  CharacterSet alphabetic() const { return category("L") | category("Nl") | table("Alphabetic"); }
  CharacterSet space() const { return parse_ranges("9-d 20 85 a0 1680 2000-200a 2028-2029 202f 205f 3000"); }
  /// A name without case, spaces, '-' and '_'.
  static std::string plain(std::string_view name) {
    std::string result;
    for (const char c : name) {
      if (c != ' ' && c != '-' && c != '_') result += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    return result;
  }

  /// \w in brackets.
  CharacterSet posix_word() const { return alphabetic() | category("M") | category("Nd") | category("Pc"); }

  /// \w outside of brackets. As in Oniguruma, it includes the superscripts and fractions of Latin-1.
  CharacterSet word() const { return posix_word() | parse_ranges("b2-b3 b9 bc-be"); }

  /// The set of [:name:], which differs from \p{name} for two names.
  std::optional<CharacterSet> find_posix(std::string_view name) const {
    if (name == "punct") return category("P") | category("S");
    return name == "word" ? posix_word() : find(name);
  }

 private:
  static constexpr char32_t last_cased = 0x1e944;
  // In the order of utf8proc's enumerators.
  static constexpr std::array<std::string_view, 30> category_names{
      "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
      "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

  std::optional<CharacterSet> find_class(std::string_view name) const;
  std::optional<CharacterSet> find_category(std::string_view name) const;

  std::array<CharacterSet, category_names.size()> categories_;
  std::vector<std::pair<char32_t, char32_t>> folds_;  // (folded, other), where they differ
};

inline std::optional<CharacterSet> CharacterProperties::find(std::string_view name) const {
  const std::string wanted = plain(name);
  if (auto set = find_class(wanted)) return set;
  if (auto set = find_category(wanted)) return set;
  for (const NamedRanges& script : script_tables) {
    if (plain(script.name) == wanted || plain(script.alias) == wanted) return parse_ranges(script.ranges);
  }
  if (wanted == "unknown" || wanted == "zzzz") {
    CharacterSet known;
    for (const NamedRanges& script : script_tables) known = known | parse_ranges(script.ranges);
    return CharacterSet::of(0, last_character) & ~known;
  }
  return std::nullopt;
}

inline std::optional<CharacterSet> CharacterProperties::find_class(std::string_view name) const {
  const CharacterSet characters = CharacterSet::of(0, last_character);
  if (name == "any") return characters;
  if (name == "assigned") return characters & ~category("Cn");
  if (name == "ascii") return CharacterSet::of(0, 127);
  if (name == "alnum") return alphabetic() | category("Nd");
  if (name == "alpha" || name == "alphabetic") return alphabetic();
  if (name == "blank") return category("Zs") | CharacterSet::of('\t');
  if (name == "cntrl") return category("Cc");
  if (name == "digit") return category("Nd");
  if (name == "graph") return characters & ~(space() | category("Cc") | category("Cn") | category("Cs"));
  if (name == "lower" || name == "lowercase") return category("Ll") | table("Lowercase");
  if (name == "print")
    return (characters & ~(category("Cc") | category("Cn") | category("Cs") | space())) | category("Zs");
  if (name == "punct") return category("P");
  if (name == "space" || name == "whitespace") return space();
  if (name == "upper" || name == "uppercase") return category("Lu") | table("Uppercase");
  if (name == "xdigit") return parse_ranges("30-39 41-46 61-66");
  if (name == "word") return word();
  if (name == "emoji") return table("Emoji");
  if (name == "extpict" || name == "extendedpictographic") return table("Extended_Pictographic");
  return std::nullopt;
}

/// A general category or a group of them, by its short or long name.
inline std::optional<CharacterSet> CharacterProperties::find_category(std::string_view name) const {
  struct Category {
    std::string_view name, long_name;
  };
  static constexpr Category categories[] = {{"C", "other"},
                                            {"Cc", "control"},
                                            {"Cf", "format"},
                                            {"Cn", "unassigned"},
                                            {"Co", "privateuse"},
                                            {"Cs", "surrogate"},
                                            {"L", "letter"},
                                            {"Ll", "lowercaseletter"},
                                            {"Lm", "modifierletter"},
                                            {"Lo", "otherletter"},
                                            {"Lt", "titlecaseletter"},
                                            {"Lu", "uppercaseletter"},
                                            {"M", "mark"},
                                            {"M", "combiningmark"},
                                            {"Mc", "spacingmark"},
                                            {"Me", "enclosingmark"},
                                            {"Mn", "nonspacingmark"},
                                            {"N", "number"},
                                            {"Nd", "decimalnumber"},
                                            {"Nl", "letternumber"},
                                            {"No", "othernumber"},
                                            {"P", "punctuation"},
                                            {"Pc", "connectorpunctuation"},
                                            {"Pd", "dashpunctuation"},
                                            {"Pe", "closepunctuation"},
                                            {"Pf", "finalpunctuation"},
                                            {"Pi", "initialpunctuation"},
                                            {"Po", "otherpunctuation"},
                                            {"Ps", "openpunctuation"},
                                            {"S", "symbol"},
                                            {"Sc", "currencysymbol"},
                                            {"Sk", "modifiersymbol"},
                                            {"Sm", "mathsymbol"},
                                            {"So", "othersymbol"},
                                            {"Z", "separator"},
                                            {"Zl", "lineseparator"},
                                            {"Zp", "paragraphseparator"},
                                            {"Zs", "spaceseparator"}};
  if (name == "lc" || name == "casedletter") return category("Lu") | category("Ll") | category("Lt");
  for (const Category& entry : categories) {
    if (name == plain(entry.name) || name == entry.long_name) return category(entry.name);
  }
  return std::nullopt;
}

}  // namespace moe_mamba::inline v0_2::detail
