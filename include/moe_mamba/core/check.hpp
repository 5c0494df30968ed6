#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "moe_mamba/core/error.hpp"

/// Errors at the API: every message names the argument, its value and what is allowed.
namespace moe_mamba::inline v0_2 {

namespace detail {

/// The shortest text that is parsed as the same number.
template <std::floating_point Number>
std::string exact_text(Number number) {
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, number).ptr);
}

/// The allowed integers: "an integer from 0 to 5" if `before` is "an integer from "; "0" if that is the only one, and "none" if
/// there are none.
template <std::integral Integer>
std::string range_text(Integer lowest, std::type_identity_t<Integer> highest, const std::string& before = "") {
  if (highest < lowest) return "none";
  return highest == lowest ? std::to_string(lowest)
                           : before + std::to_string(lowest) + " to " + std::to_string(highest);
}

/// Whether lowest <= number <= highest. False for a NaN, for which it raises no floating-point exception.
template <std::floating_point Number>
bool in_range(Number number, std::type_identity_t<Number> lowest, std::type_identity_t<Number> highest) {
  return std::isgreaterequal(number, lowest) && std::islessequal(number, highest);
}

/// A value in a message.
template <class Value>
std::string value_text(const Value& value) {
  if constexpr (std::is_floating_point_v<Value>) {
    return exact_text(value);
  } else if constexpr (std::is_integral_v<Value>) {
    return std::to_string(value);
  } else {
    return std::string(value);
  }
}

inline std::string argument_error(const char* argument, const std::string& value, const std::string& allowed) {
  return std::string(argument) + " is " + value + "; allowed: " + allowed;
}

/// Throws an Error. A function of its own, and cold, so that checks cost their callers a comparison and a call.
template <class Error, class Value, class Allowed>
[[noreturn, gnu::cold, gnu::noinline]] void refuse(const char* argument, const Value& value, const Allowed& allowed) {
  if constexpr (std::is_invocable_v<const Allowed&>) {
    raise<Error>(argument_error(argument, value_text(value), allowed()));
  } else {
    raise<Error>(argument_error(argument, value_text(value), allowed));
  }
}

}  // namespace detail

/// "<argument> is <value>; allowed: <allowed>"
template <class Value>
std::string error_text(const char* argument, const Value& value, const std::string& allowed) {
  return detail::argument_error(argument, detail::value_text(value), allowed);
}

/// Throws std::invalid_argument unless `ok`. `allowed` is a string, or a function that returns one, called only
/// on failure.
template <class Value, class Allowed>
void require(bool ok, const char* argument, const Value& value, const Allowed& allowed) {
  if (!ok) detail::refuse<std::invalid_argument>(argument, value, allowed);
}

/// Throws std::invalid_argument for the first of some numbers that is a NaN or an infinity.
template <class Numbers>
void require_finite(const char* argument, const Numbers& numbers) {
  const auto found = std::find_if(numbers.begin(), numbers.end(), [](auto number) { return !std::isfinite(number); });
  if (found == numbers.end()) return;
  const std::string element = std::string(argument) + "[" + std::to_string(found - numbers.begin()) + "]";
  detail::refuse<std::invalid_argument>(element.c_str(), *found, "finite numbers");
}

/// Throws std::out_of_range for the first of some tokens that is not in lowest … vocabulary - 1.
template <class Tokens>
void require_tokens(const char* argument, const Tokens& tokens, int lowest, int vocabulary) {
  const auto found =
      std::find_if(tokens.begin(), tokens.end(), [&](auto token) { return token < lowest || token >= vocabulary; });
  if (found == tokens.end()) return;
  const std::string element = std::string(argument) + "[" + std::to_string(found - tokens.begin()) + "]";
  detail::refuse<std::out_of_range>(element.c_str(), *found, detail::range_text(lowest, vocabulary - 1));
}

/// Throws std::out_of_range unless `ok`.
template <class Value, class Allowed>
void require_range(bool ok, const char* argument, const Value& value, const Allowed& allowed) {
  if (!ok) detail::refuse<std::out_of_range>(argument, value, allowed);
}

}  // namespace moe_mamba::inline v0_2
