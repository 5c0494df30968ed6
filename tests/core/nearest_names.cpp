#include "moe_mamba/core/nearest_names.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;

namespace {

/// By the recursive definition: delete the last letter of either, or substitute one for the other.
std::size_t naive_distance(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.size() + b.size();
  const auto less_a = a.substr(1), less_b = b.substr(1);
  return std::min({naive_distance(less_a, b) + 1, naive_distance(a, less_b) + 1,
                   naive_distance(less_a, less_b) + (a[0] == b[0] ? 0 : 1)});
}

std::string nearest(std::string_view wanted, const std::vector<std::string>& names) {
  detail::NearestNames nearest(wanted);
  for (const auto& name : names) nearest.offer(name);
  return nearest.text([](const std::string& name) { return '<' + name + '>'; });
}

}  // namespace

TEST_CASE("Edit distances are those of the definition", "[core]") {
  Random random(Seed{1});
  const auto word = [&] {
    std::string text;
    for (auto length = random.below(7); length > 0; --length) text += static_cast<char>('a' + random.below(3));
    return text;
  };
  for (int repeat = 0; repeat < 500; ++repeat) {
    const std::string a = word(), b = word();
    INFO(a << ' ' << b);
    REQUIRE(detail::edit_distance(a, b) == naive_distance(a, b));
  }
  CHECK(detail::edit_distance(std::string(1000, 'a'), std::string(5000, 'b')) == 100);
}

TEST_CASE("The three nearest names are given, the nearest first, equal ones in their order", "[core]") {
  CHECK(nearest("embeding.weight", {"norm", "head", "embedding.bias", "embedding.weight", "x"}) ==
        "<embedding.weight>, <embedding.bias>, <norm>");
  CHECK(nearest("a", {"d", "b", "c", "e"}) == "<d>, <b>, <c>");
  CHECK(nearest("in_proj", {"norm", "mixer.in_proj.weight", "input"}) == "<mixer.in_proj.weight>, <input>, <norm>");
  CHECK(nearest("a", {"b"}) == "<b>");
  CHECK(nearest("a", {}).empty());
}
