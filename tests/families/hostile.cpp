// Malicious folders: opening one is an error that names the file and what is wrong with it.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "families/folders.hpp"
#include "moe_mamba/core/random.hpp"

using namespace moe_mamba;
using test::Contains;
using test::edit;
using test::refusal;

namespace {

/// Whether a text is a number as RFC 8259 defines it.
bool is_json_number(std::string_view text) {
  const auto take = [&](std::string_view characters) {
    if (text.empty() || characters.find(text.front()) == characters.npos) return false;
    text.remove_prefix(1);
    return true;
  };
  const auto take_digits = [&] {
    const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
    text.remove_prefix(digits);
    return digits > 0;
  };
  take("-");
  if (!take("0") && !take_digits()) return false;
  if (take(".") && !take_digits()) return false;
  if (take("eE")) {
    take("+-");
    if (!take_digits()) return false;
  }
  return text.empty();
}

/// The message if config.json is this text.
std::string with_config(const std::string& text) {
  return refusal([&](const test::Folder& folder) { test::write_bytes(folder / "config.json", text); });
}

/// The message if a field of the config has another value.
std::string with_field(const std::string& from, const std::string& to) {
  return refusal([&](const test::Folder& folder) { edit(folder / "config.json", from, to); });
}

std::string with_shard(const std::string& name, const std::string& after = "") {
  return refusal(
      [&](const test::Folder& folder) {
        test::write_bytes(folder / "model.safetensors.index.json",
                          "{\"weight_map\": {\"backbone.norm_f.weight\": " + name + after + "}}");
      },
      "mamba_shards");
}

}  // namespace

TEST_CASE("A config with wrong types and sizes is refused with field, value and what is allowed",
          "[families][hostile]") {
  CHECK_THAT(with_field("\"hidden_size\": 12", "\"hidden_size\": \"12\""),
             Contains("config.json: hidden_size is \"12\"; allowed: an integer from 1 to 1048576"));
  for (const char* value : {"0", "-1", "99999999999999999999999", "1e300", "12.5", "true", "[12]", "{}", "1048577"}) {
    INFO(value);
    CHECK_THAT(with_field("\"hidden_size\": 12", std::string("\"hidden_size\": ") + value),
               Contains("hidden_size is ") && Contains("allowed: an integer from 1 to 1048576"));
  }
  for (const char* value : {"NaN", "Infinity", "-Infinity", "1e400", "1e308", "-1e308"}) {
    INFO(value);
    for (const char* field : {"\"hidden_size\": 12", "\"layer_norm_epsilon\": 1e-05"}) {
      const std::string name = std::string(field).substr(0, std::string(field).find(' ') + 1);
      CHECK_THAT(with_field(field, name + value), Contains(name.substr(1, name.size() - 4) + " is "));
    }
  }
  CHECK_THAT(with_field("\"hidden_size\"", "\"hidden\""), Contains("hidden_size is missing"));
  CHECK_THAT(with_field("\"hidden_size\": 12", "\"hidden_size\": null"), Contains("hidden_size is missing"));
  CHECK_THAT(with_field("\"hidden_size\": 12", "\"hidden_size\": 12, \"hidden_size\": 12"),
             Contains("duplicate key hidden_size"));
  CHECK_THAT(with_field("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000000"),
             Contains("num_hidden_layers is 1000000000; allowed: an integer from 1 to 65536"));
  CHECK_THAT(with_field("\"intermediate_size\": 12", "\"intermediate_size\": 13"), Contains("intermediate_size is 13"));
  CHECK_THAT(with_field("1e-05", "-1e-05"),
             Contains("layer_norm_epsilon is -1e-05; allowed: a number of at least 1e-9"));
  CHECK_THAT(with_field("1e-05", "1e-300"), Contains("layer_norm_epsilon is 1e-300"));
  CHECK_THAT(with_field("1e-05", "\"\""), Contains("layer_norm_epsilon is \"\""));
  CHECK_THAT(with_field("\"use_bias\": false", "\"use_bias\": 0"), Contains("use_bias is 0; allowed: true or false"));
  CHECK_THAT(with_field("\"silu\"", "\"gelu\""), Contains("hidden_act is \"gelu\"; allowed: \"silu\" or \"swish\""));
  CHECK_THAT(with_field("\"mamba\"", "\"gpt2\""),
             Contains("model_type is \"gpt2\"; allowed: a model of mamba, falcon_mamba, black_mamba"));
  CHECK_THAT(
      with_field("\"mamba\"", "\"switch_transformers\""),
      Contains(
          "model_type is \"switch_transformers\", an encoder-decoder model; allowed: a decoder-only language model: "
          "one of mamba,"));
  CHECK_THAT(with_field("\"mamba\"", "\"t5\", \"is_encoder_decoder\": true"),
             Contains("model_type is \"t5\", an encoder-decoder model"));
}

TEST_CASE("Text that is not a config is refused", "[families][hostile]") {
  CHECK_THAT(with_config(""), Contains("config.json") && Contains("empty"));
  CHECK_THAT(with_config("{"), Contains("text is not valid at byte"));
  CHECK_THAT(with_config("[]"), Contains("config is an array of 0; allowed: an object"));
  CHECK_THAT(with_config("12"), Contains("config is 12; allowed: an object"));
  CHECK_THAT(with_config("{}"), Contains("model_type is missing"));
  CHECK_THAT(with_config("{\"model_type\": NaN}"), Contains("model_type is NaN; allowed: a model of mamba"));
  CHECK_THAT(with_config("\xef\xbb\xbf{}"), Contains("byte order mark"));
  CHECK_THAT(with_config(std::string("{}\0", 3)), Contains("byte 2 is zero"));
  CHECK_THAT(with_config(std::string(17, '[')), Contains("is deeper than 16; allowed: 16 levels"));
  CHECK_THAT(with_config("{\"a\":" + std::string(900'000, '[')), Contains("is deeper than 16; allowed: 16 levels"));
  CHECK_THAT(with_config("{\"a\":[" + std::string(600'000, '1') + "]}"), Contains("config.json"));
  std::string many = "{\"a\":[0";
  for (int i = 0; i < 300'000; ++i) many += ",0";
  CHECK_THAT(with_config(many + "]}"), Contains("the number of values is over 262144; allowed: at most 262144"));
  CHECK_THAT(with_config(std::string((1 << 20) + 1, ' ')),
             Contains("file size is 1048577 bytes; allowed: at most 1048576"));
  CHECK_THAT(refusal([](const test::Folder& folder) { std::filesystem::remove(folder / "config.json"); }),
             Contains("config.json") && Contains("No such file"));
  CHECK_THAT(refusal([](const test::Folder& folder) {
               std::filesystem::remove(folder / "config.json");
               std::filesystem::create_directory(folder / "config.json");
             }),
             Contains("config.json"));
}

TEST_CASE("Non-finite numbers are read as Python writes them", "[families][hostile]") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const JsonValue read = parse_json(
      R"({"a": [0, -Infinity, 2.5, Infinity,-3,NaN], "Infinity": "NaN \" Infinity", "b":NaN , "c": 0})", "test");
  const auto& a = read.find("a")->elements;
  const double expected[] = {0, -infinity, 2.5, infinity, -3};
  for (std::size_t i = 0; i < std::size(expected); ++i) CHECK(a[i].number == expected[i]);
  CHECK(std::isnan(a[5].number));
  CHECK(read.find("Infinity")->string == "NaN \" Infinity");
  CHECK(read.find("b")->text() == "NaN");
  CHECK(read.find("c")->kind == JsonValue::Kind::integer);
  CHECK(parse_json("-Infinity", "test").text() == "-Infinity");
  for (const char* text : {"Inf", "nan", "+Infinity", "- Infinity", "--Infinity", "-NaN", "1Infinity", "Infinity1",
                           "[Infinity.0]", "{Infinity: 1}", "NaNNaN", "[NaN NaN]", "\"\\", "[-, NaN]"}) {
    INFO(text);
    CHECK_THAT(test::message_of<std::runtime_error>([&] { (void)parse_json(text, "test"); }),
               Contains("text is not valid"));
  }
  CHECK(with_field("\"hidden_size\"", "\"time_step_limit\": [0.0, Infinity], \"hidden_size\"").empty());
  CHECK_THAT(with_field("\"hidden_size\": 12", "\"hidden_size\": Infinity"),
             Contains("hidden_size is Infinity; allowed: an integer"));
  CHECK_THAT(with_field("1e-05", "NaN"), Contains("layer_norm_epsilon is NaN; allowed: a number of at least 1e-9"));
}

TEST_CASE("Numbers too large for a double are read as infinity, as Python reads them", "[families][hostile]") {
  const std::string digits(309, '9');
  const JsonValue read =
      parse_json("[1e999,-1E+400, 2.5, 1e308,-0.5e307 ,1e309,1e-999,-" + digits + ",0e999, 7]", "test");
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double expected[] = {infinity, -infinity, 2.5, 1e308, -0.5e307, infinity, 0, -infinity, 0, 7};
  REQUIRE(read.elements.size() == std::size(expected));
  for (std::size_t i = 0; i < std::size(expected); ++i) CHECK(read.elements[i].number == expected[i]);
  CHECK(read.elements[9].kind == JsonValue::Kind::integer);
  CHECK(parse_json("\"1e999\"", "test").string == "1e999");
  CHECK_THAT(with_field("1e-05", "1e999"),
             Contains("layer_norm_epsilon is Infinity; allowed: a number of at least 1e-9"));
  CHECK_THAT(with_field("\"hidden_size\": 12", "\"hidden_size\": -1e999"),
             Contains("hidden_size is -Infinity; allowed: an integer from 1"));

  // Random characters of numbers.
  Random random(Seed{3});
  int infinities = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string number;
    for (auto left = random.below(9) + 1; left > 0; --left) number += "0123456789..eE+-x"[random.below(17)];
    INFO(number);
    if (is_json_number(number)) {
      const double value = std::strtod(number.c_str(), nullptr);
      CHECK(parse_json(number, "test").number == value);
      infinities += std::isinf(value);
    } else {
      CHECK_THROWS_AS(parse_json(number, "test"), std::runtime_error);
    }
  }
  CHECK(infinities > 20);
}

TEST_CASE("Names of shards that point outside the folder are refused", "[families][hostile]") {
  for (const char* name :
       {"\"../model.safetensors\"", "\"/etc/passwd\"", "\"/tmp/x.safetensors\"", "\"a/b.safetensors\"", "\"..\"",
        "\"a\\\\b.safetensors\"", "\"~/x.safetensors\"", "\"model.bin\"", "\".safetensors\"", "\"\\u0000.safetensors\"",
        "\"..safetensors\"", "\"x y.safetensors\"", "\"file://x.safetensors\""}) {
    INFO(name);
    CHECK_THAT(with_shard(name), Contains("model.safetensors.index.json: weight_map: file is ") &&
                                     Contains("allowed: the name of a file in the same folder"));
  }
  CHECK_THAT(with_shard("\"" + std::string(300, 'a') + ".safetensors\""), Contains("weight_map: file is "));
  for (const char* value : {"1", "null", "[]", "{}", "\"\""}) {
    CHECK_THAT(with_shard(value),
               Contains("weight_map: file of \"backbone.norm_f.weight\" is ") && Contains("allowed: a file name"));
  }
  CHECK_THAT(with_shard("\"absent.safetensors\""), Contains("absent.safetensors"));
}

TEST_CASE("An index that does not match the shards is refused", "[families][hostile]") {
  const std::string first = "\"model-00001-of-00005.safetensors\"";
  CHECK_THAT(with_shard(first), Contains("tensor \"backbone.norm_f.weight\" is missing; allowed: the tensors "
                                         "listed in model.safetensors.index.json"));
  CHECK_THAT(with_shard("\"model-00005-of-00005.safetensors\""),
             Contains("is not listed in model.safetensors.index.json"));
  CHECK_THAT(with_shard(first, ", \"backbone.norm_f.weight\": " + first), Contains("duplicate key weight_map"));
  const auto index = [](const std::string& text) {
    return refusal(
        [&](const test::Folder& folder) { test::write_bytes(folder / "model.safetensors.index.json", text); },
        "mamba_shards");
  };
  CHECK_THAT(index("{}"), Contains("weight_map is missing; allowed: an object"));
  CHECK_THAT(index("{\"weight_map\": []}"), Contains("weight_map is an array of 0; allowed: an object"));
  CHECK_THAT(index("[1]"), Contains("weight_map is missing"));
  CHECK_THAT(index("{\"weight_map\": {}}"), Contains("is missing"));
  CHECK_THAT(refusal([](const test::Folder& folder) { std::filesystem::remove(folder / "model.safetensors"); }),
             Contains("neither model.safetensors nor model.safetensors.index.json"));
}

TEST_CASE("Links are followed only on request", "[families][hostile]") {
  for (const char* name : {"config.json", "model.safetensors"}) {
    const test::Folder folder, elsewhere;
    for (const char* file : {"config.json", "model.safetensors"}) {
      const bool is_link = std::string(file) == name;
      std::filesystem::copy(test::fixture_folder("mamba") / file, (is_link ? elsewhere : folder) / file);
    }
    std::filesystem::create_symlink(elsewhere / name, folder / name);
    INFO(name);
    CHECK_THAT(test::message_of<std::runtime_error>([&] { (void)load<test::SmallMamba>(Pretrained{folder.path()}); }),
               Contains(name) && Contains("it is a symbolic link, which may point outside the folder"));
    CHECK_NOTHROW(load<test::SmallMamba>(Pretrained{folder.path(), Links::followed}));
  }
  const std::string shard = "model-00003-of-00005.safetensors";
  CHECK_THAT(refusal(
                 [&](const test::Folder& folder) {
                   std::filesystem::rename(folder / shard, folder / "other");
                   std::filesystem::create_symlink("other", folder / shard);
                 },
                 "mamba_shards"),
             Contains(shard) && Contains("it is a symbolic link"));
  CHECK_THAT(test::message_of<std::runtime_error>([] { (void)load<test::SmallMamba>(Pretrained{"/nowhere"}); }),
             Contains("/nowhere: cannot be opened as a checkpoint: it is not a folder"));
}

TEST_CASE("Damaged folders open or are refused, and nothing else happens", "[families][hostile]") {
  Random random(Seed{1});
  int opened = 0;
  for (int round = 0; round < 600; ++round) {
    const bool sharded = round % 2 == 0;
    const char* file = sharded ? "model.safetensors.index.json" : "config.json";
    try {
      (void)refusal(
          [&](const test::Folder& folder) {
            std::string text = test::read_bytes(folder / file);
            const auto changes = 1 + random.below(4);
            for (std::uint64_t change = 0; change < changes; ++change) {
              const auto at = static_cast<std::size_t>(random.below(text.size()));
              const std::string fragments[] = {"", "{", "]", "\"", "9", "-", "e", ",", "\\", "null", "../", "\xff"};
              text.replace(at, static_cast<std::size_t>(random.below(4)),
                           fragments[random.below(std::size(fragments))]);
            }
            test::write_bytes(folder / file, text);
          },
          sharded ? "mamba_shards" : "mamba");
      ++opened;
    } catch (const std::exception& error) {
      FAIL(error.what());  // refusal() catches std::runtime_error, the only exception allowed
    }
  }
  CHECK(opened == 600);
}
