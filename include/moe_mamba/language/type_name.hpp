#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/core/standard.hpp"
#include "moe_mamba/language/options.hpp"

namespace moe_mamba::inline v0_2::detail {

/// A type that defines its name in files itself.
template <class T>
concept NamesItself = requires {
  { T::spelling } -> std::convertible_to<std::string_view>;
};

/// The compiler's name of a function template's instance for T.
template <class T>
constexpr const char* function_of_type() {
  return __PRETTY_FUNCTION__;
}

/// The compiler's name of T.
template <class T>
constexpr std::string_view compilers_name() {
  constexpr std::string_view function = function_of_type<T>(), mark = "T = ";
  constexpr std::size_t begin = function.find(mark) + mark.size(), end = function.rfind(']');
  return function.substr(begin, end - begin);
}

constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_identifier_character(char c) {
  return c == '_' || is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Whether a name has a lambda or another type without a name in it. Compilers name them by their parameters, by a
/// count or by a line of a source, which other types have as well, or not at all: clang writes an argument that is a
/// lambda "{}".
constexpr bool has_unnamed_type(std::string_view name) {
  for (const std::string_view mark : {"<lambda", "{lambda", "(lambda", "'lambda", "auto:", "<unnamed ", "(unnamed ",
                                      "{unnamed ", "'unnamed", "<anonymous ", "(anonymous "}) {
    for (std::size_t i = name.find(mark); i != name.npos; i = name.find(mark, i + 1)) {
      const std::string_view rest = name.substr(i + mark.size());
      if (mark != "auto:" ? !rest.starts_with("namespace") : !rest.empty() && is_digit(rest[0])) return true;
    }
  }
  for (std::size_t i = name.find("{}"); i != name.npos; i = name.find("{}", i + 1)) {
    if (i > 0 && !is_identifier_character(name[i - 1]) && name[i - 1] != '>') return true;
  }
  return false;
}

/// Whether a compiler may give two types this name: unnamed types have no names of their own, clang truncates arrays
/// after ten elements with "...", and prints every number with six decimals.
constexpr bool leaves_out(std::string_view name) {
  if (has_unnamed_type(name) || name.find("...") != name.npos) return true;
  for (std::size_t point = name.find('.'); point != name.npos; point = name.find('.', point + 1)) {
    const std::string_view rest = name.substr(point + 1);
    const auto digits = static_cast<std::size_t>(std::find_if_not(rest.begin(), rest.end(), is_digit) - rest.begin());
    if (digits == 6 && rest.size() >= 10 && rest[6] == 'e' && is_digit(rest[8]) && is_digit(rest[9])) return true;
  }
  return false;
}

template <class T>
struct NameOfType {
  static_assert(
      !leaves_out(compilers_name<T>()),
      "files identify your own layers, norms, activations and schedules by the names of their types, and the compiler "
      "abbreviates this one: give the type a member static constexpr std::string_view spelling with a text that no "
      "other type has: NameOfType<type>");
};

/// The end of a literal in quotation marks that begins at `begin`.
inline std::size_t literal_end(std::string_view text, std::size_t begin) {
  for (std::size_t i = begin + 1; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;
    } else if (text[i] == text[begin]) {
      return i + 1;
    }
  }
  return text.size();
}

/// A compiler's name of a type in a form common to g++ and clang: qualified, except by the library's namespace and by
/// scopes that only g++ writes, with spaces after commas and between identifiers. "Relu" is the library's, "::Relu" a
/// user's.
inline std::string common_name(std::string_view written) {
  constexpr std::string_view unnamed = "(anonymous namespace)", own = "moe_mamba::";
  const auto identifier_length = [](std::string_view text) {
    return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), is_identifier_character) - text.begin());
  };
  const std::size_t first = identifier_length(written);
  std::string name = first > 0 && !written.substr(first).starts_with("::") ? "::" : "";
  for (std::size_t i = written.starts_with(own) ? own.size() : 0; i < written.size();) {
    const std::string_view rest = written.substr(i);
    const char c = rest.front();
    if (c == '"' || c == '\'') {
      const std::size_t end = literal_end(written, i);
      name += written.substr(i, end - i);
      i = end;
    } else if (rest.starts_with("{anonymous}") || rest.starts_with("<unnamed>")) {
      name += unnamed;
      i += rest.find(c == '{' ? '}' : '>') + 1;
    } else if (is_identifier_character(c)) {
      const std::size_t length = identifier_length(rest);
      // Such as std::__cxx11:: and moe_mamba::v0_2::, inline namespaces of versions.
      const bool versioned =
          rest.starts_with("__") || (rest.starts_with("v0_2::") && written.substr(0, i).ends_with(own));
      const bool left_out = versioned && rest.substr(length).starts_with("::");
      // nvcc numbers unnamed namespaces by file.
      if (!left_out) name += rest.starts_with("_GLOBAL__N_") ? unnamed : rest.substr(0, length);
      i += left_out ? length + 2 : length;
    } else {
      const bool between_identifiers = c == ' ' && !name.empty() && is_identifier_character(name.back()) &&
                                       rest.size() > 1 && is_identifier_character(rest[1]);
      if (c != ' ' || between_identifiers) name += c;
      if (c == ',') name += ' ';
      ++i;
    }
  }
  return name;
}

/// The name of a type for messages: its member `spelling`, if it has one (a derived class has its base's), otherwise
/// its qualified name, as in "mine::Gain<mine::Bound<3>, moe_mamba::Relu>".
template <class T>
std::string shown_name() {
  if constexpr (NamesItself<T>) {
    return std::string(std::string_view(T::spelling));
  } else {
    return common_name(compilers_name<T>());
  }
}

/// The name of a type in files: the same, but unique, except that clang gives local types of one name in two functions
/// the same name, which cannot be detected: it omits their scope.
template <class T>
std::string type_name() {
  if constexpr (!NamesItself<T>) check<NameOfType<T>>();
  return shown_name<T>();
}

}  // namespace moe_mamba::inline v0_2::detail
