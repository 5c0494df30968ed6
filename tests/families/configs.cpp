// Configs with random fields, and the models that the families' own code constructs from them:
// tests/fixtures/configs.py.
#include <cstdlib>
#include <fstream>

#include "families/fixture.hpp"

using namespace moe_mamba;

namespace {

constexpr const char* numeric_options[] = {
    "State",  "Convolution",   "Expand",    "StepRank", "ProjectionBias", "Heads", "NoConvolutionBias",
    "Hidden", "KeyValueHeads", "HeadWidth", "Experts",  "TopK",           "Rotary"};

std::string text_or_empty(const JsonValue* value) { return value == nullptr ? "" : value->string; }
std::string spelling_or_empty(const families::OptionSpec* option) { return option == nullptr ? "" : option->spelling; }

void check_layer(const families::LayerSpec& ours, const JsonValue& theirs, Index width) {
  REQUIRE(ours.name == theirs.find("layer")->string);
  CHECK(ours.norm.number == theirs.find("norm")->number);
  for (const char* name : numeric_options) {
    INFO(name);
    const JsonValue* expected = theirs.find(name);
    if (expected == nullptr) {
      const auto* option = ours.find(name);  // Jamba's attention has no positions
      CHECK((option == nullptr || option->spelling == "NoPositions"));
    } else {
      const Index unit = std::string_view(name) == "Expand" ? width : 1;  // ours is the inner width
      CHECK(static_cast<double>(ours[name]) == expected->number * static_cast<double>(unit));
    }
  }
  CHECK(spelling_or_empty(ours.find("the activation")) == text_or_empty(theirs.find("activation")));
  CHECK(spelling_or_empty(ours.find("the biases")) == text_or_empty(theirs.find("biases")));
  if (const families::OptionSpec* norm = ours.find("InnerNorm")) {
    const JsonValue* epsilon = theirs.find("InnerNorm");
    CHECK((epsilon == nullptr) == (norm->spelling == "no InnerNorm"));
    if (epsilon != nullptr) CHECK(norm->number == epsilon->number);
  }
  // If the config leaves the context open, any matches.
  if (const families::OptionSpec* context = ours.find("Context")) {
    CHECK(context->any_value == (theirs.find("Context") == nullptr));
    if (!context->any_value) CHECK(context->number == theirs.find("Context")->number);
  }
}

}  // namespace

TEST_CASE("Configs describe the models that transformers constructs from them", "[families]") {
  const char* other = std::getenv("MOE_MAMBA_CONFIGS");
  const std::string path = other != nullptr ? other : test::fixture_folder("configs.jsonl").string();
  std::ifstream file(path);
  REQUIRE(file);
  int count = 0;
  for (std::string line; std::getline(file, line); ++count) {
    INFO(line);
    const JsonValue fields = parse_json(line, path);
    const families::Config config("config.json", *fields.find("config"));
    const auto model = families::family_of(config).architecture(config);
    const JsonValue& expected = *fields.find("model");
    CHECK(static_cast<double>(model["Vocabulary"]) == expected.find("Vocabulary")->number);
    CHECK(static_cast<double>(model["Width"]) == expected.find("Width")->number);
    CHECK(model.tied_head() == expected.find("tied")->boolean);
    const auto& layers = expected.find("layers")->elements;
    REQUIRE(model.layers.size() == layers.size());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      INFO("layer " << i);
      check_layer(model.layers[i], layers[i], model["Width"]);
    }
  }
  CHECK(count >= 100);
}
