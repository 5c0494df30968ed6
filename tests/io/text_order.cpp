// Many names in a file: their order, and time in proportion to their number.
#include "moe_mamba/io/text_order.hpp"

#include <ctime>
#include <random>
#include <string>

#include "moe_mamba/io/json.hpp"
#include "moe_mamba/io/safetensors_header.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

/// Texts of few different bytes, so that many share long prefixes and some are equal.
std::vector<std::string> random_texts(std::size_t count, std::size_t shared, std::mt19937& random) {
  constexpr std::string_view bytes("\0a\x7f\x80\xff", 5);
  const std::string begin(shared, 'x');
  const bool all_share = random() % 2 == 0;
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) {
    std::string text = all_share || random() % 8 != 0 ? begin : "";
    const std::size_t size = random() % 24;
    const std::size_t kinds = 1 + random() % bytes.size();
    while (text.size() < shared + size) text += bytes[random() % kinds];
    texts.push_back(random() % 4 != 0 || texts.empty() ? text : texts[random() % texts.size()]);
  }
  return texts;
}

/// The order and ties according to the standard library.
std::vector<std::uint32_t> stable_order(const std::vector<std::string>& texts) {
  std::vector<std::uint32_t> order(texts.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return texts[a] < texts[b]; });
  return order;
}

/// CPU seconds for reading a text: the minimum of three.
template <class Read>
double seconds(const Read& read, const std::string& text) {
  double fewest = 1e9;
  for (int i = 0; i < 3; ++i) {
    const std::clock_t begin = std::clock();
    read(text);
    fewest = std::min(fewest, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return fewest;
}

/// Numbered names in a random order, separated by `between`, each after `prefix` and followed by `suffix`.
std::string names(std::size_t count, const std::string& between, const std::string& suffix,
                  const std::string& prefix = "k") {
  std::vector<std::uint32_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0u);
  std::shuffle(numbers.begin(), numbers.end(), std::mt19937(count));
  std::string text;
  for (const std::uint32_t number : numbers) {
    text += (text.empty() ? "" : between) + '"' + prefix + std::to_string(number) + '"' + suffix;
  }
  return text;
}

}  // namespace

TEST_CASE("Texts are stably sorted by their bytes", "[io]") {
  std::mt19937 random(1);
  for (const std::size_t count : {0u, 1u, 2u, 15u, 16u, 17u, 18u, 100u, 1000u}) {
    for (const std::size_t shared : {0u, 1u, 6u, 7u, 8u, 13u, 14u, 15u, 40u}) {
      for (int round = 0; round < 10; ++round) {
        const std::vector<std::string> texts = random_texts(count, shared, random);
        INFO(count << " texts, round " << round << ", " << shared << " bytes shared");
        const auto text = [&](std::size_t index) { return std::string_view(texts[index]); };
        REQUIRE(detail::order_of(count, text) == stable_order(texts));
      }
    }
  }
}

TEST_CASE("Duplicate keys in metadata are named, the first of several", "[io]") {
  std::string header = "{\"__metadata__\":{" + names(1000, ",", ":\"v\"");
  header += R"(,"z":"1","b":"1","z":"2","b":"2","c":"1","a":"1","c":"2"}})";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size() & 0xff);
  file[1] = static_cast<char>(header.size() >> 8);
  file += header;
  const std::string message =
      test::message_of<std::runtime_error>([&] { parse_safetensors(std::as_bytes(std::span(file)), "a.safetensors"); });
  REQUIRE(message.find("duplicate metadata key \"z\"") != message.npos);
}

// Each doubling takes at most 2.3 times the time, four of them at most 28 times; the margin is for other programs.
TEST_CASE("Many names take time in proportion to their number", "[io]") {
  const auto require_linear = [](const auto& read, const auto& make) {
    constexpr std::size_t count = 15'000;
    const double less = seconds(read, make(count)), more = seconds(read, make(16 * count));
    INFO(less << " s for " << count << " names, " << more << " s for 16 times as many");
    REQUIRE(more < std::max(36 * less, 0.1));
  };
  const auto read_header = [](const std::string& header) {
    std::string file(8, '\0');
    for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>((header.size() >> (8 * i)) & 0xff);
    file += header;
    const SafetensorsContents contents = parse_safetensors(std::as_bytes(std::span(file)), "a.safetensors");
    REQUIRE(contents.metadata.size() + contents.tensors.size() > 1000);
  };
  require_linear(read_header,
                 [](std::size_t count) { return "{\"__metadata__\":{" + names(count, ",", ":\"v\"") + "}}"; });
  require_linear(read_header, [](std::size_t count) {
    return '{' + names(count / 4, ",", R"(:{"dtype":"F32","shape":[0],"data_offsets":[0,0]})") + '}';
  });
  require_linear(
      [](const std::string& text) {
        const JsonValue value = parse_json(text, "a.json", {16, std::size_t{1} << 20});
        REQUIRE(value.find("k17") != nullptr);
        REQUIRE(value.find("k") == nullptr);
      },
      [](std::size_t count) { return '{' + names(count, ",", ":0") + '}'; });
  require_linear(read_header, [](std::size_t count) {
    return '{' + names(count / 8, ",", R"(:{"dtype":"F32","shape":[0],"data_offsets":[0,0]})", std::string(200, 'k')) +
           '}';
  });
}
