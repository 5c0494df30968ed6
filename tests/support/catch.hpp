#pragma once

#include <string>

/// Catch2, version 2 or 3, whichever is installed, under the names of version 2.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>

using Catch::Approx;

namespace test {
inline auto Contains(const std::string& text) { return Catch::Matchers::ContainsSubstring(text); }
}  // namespace test
#else
#include <catch2/catch.hpp>

namespace test {
inline auto Contains(const std::string& text) { return Catch::Matchers::Contains(text); }
}  // namespace test
#endif
