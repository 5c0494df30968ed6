#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "moe_mamba/core/standard.hpp"

namespace moe_mamba::detail {

/// What the compiler calls a function of T.
template <class T>
constexpr const char* function_of_type() {
  return __PRETTY_FUNCTION__;
}

constexpr bool in_word(char c) {
  return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// The name of a type without namespaces, alike from g++ and clang: "Gain<Bound<3>, Other>".
template <class T>
std::string type_name() {
  constexpr std::string_view function = function_of_type<T>(), mark = "T = ";
  constexpr std::size_t begin = function.find(mark) + mark.size(), end = function.rfind(']');
  constexpr std::string_view written = function.substr(begin, end - begin);
  std::string name;
  for (std::size_t i = 0; i < written.size(); ++i) {
    if (written.substr(i, 2) == "::") {  // what stands before it is a scope
      for (const std::string_view unnamed : {"{anonymous}", "(anonymous namespace)"}) {
        if (name.ends_with(unnamed)) name.erase(name.size() - unnamed.size());
      }
      while (!name.empty() && in_word(name.back())) name.pop_back();
      ++i;
    } else if (written[i] == ' ') {
      const bool between_words =
          !name.empty() && in_word(name.back()) && i + 1 < written.size() && in_word(written[i + 1]);
      if (between_words) name += ' ';
    } else {
      name += written[i];
      if (written[i] == ',') name += ' ';
    }
  }
  return name;
}

}  // namespace moe_mamba::detail
