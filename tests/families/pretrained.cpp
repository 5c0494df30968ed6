// Folders that are not what they seem.
#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;
using test::find;
using test::rewrite;

namespace {

using Small = test::SmallMamba;

template <class Definition = test::SmallMamba, class Change>
std::string refusal(const Change& change) {
  return test::refusal<Definition>(change);
}

template <class Definition, class S>
std::vector<S> numbers(const Model<Definition, S>& model) {
  return {model.parameters().begin(), model.parameters().end()};
}

}  // namespace

TEST_CASE("Shards and the authors' own names hold the same model", "[families]") {
  const auto expected = numbers(load<Small>(Pretrained{test::fixture_folder("mamba")}));
  CHECK(numbers(load<Small>(Pretrained{test::fixture_folder("mamba_shards")})) == expected);
  CHECK(numbers(load<Small>(Pretrained{test::fixture_folder("mamba_original")})) == expected);
  Model<Small> model(Seed{1});
  load(model, Pretrained{test::fixture_folder("mamba_shards")});
  CHECK(numbers(model) == expected);
}

TEST_CASE("A family is chosen by what it can represent, or by name", "[families]") {
  const Model<Small> model(Seed{3});
  const test::Folder folder;
  save(model, Pretrained{.folder = folder / "a", .family = "mamba_ssm"});
  CHECK_THAT(test::read_bytes(folder / "a/config.json"), Contains("\"d_model\": 12"));
  CHECK(SafetensorsFile(folder / "a/model.safetensors").find("lm_head.weight") != nullptr);
  CHECK(numbers(load<Small>(Pretrained{folder / "a"})) == numbers(model));

  CHECK_THAT(test::message_of<std::invalid_argument>(
                 [&] { save(model, Pretrained{.folder = folder / "b", .family = "falcon_mamba"}); }),
             Contains("falcon_mamba: layer 0: mixer_rms_eps"));
  CHECK_THAT(test::message_of<std::invalid_argument>(
                 [&] { save(model, Pretrained{.folder = folder / "b", .family = "gpt"}); }),
             Contains("family is gpt; allowed: mamba, falcon_mamba, black_mamba, mamba_ssm"));
  using Other = LanguageModel<Vocabulary<16>, Width<4>, Mamba<State<1>>, Mlp<>>;
  const Model<Other> other(Seed{1});
  CHECK_THAT(
      test::message_of<std::invalid_argument>([&] { save(other, Pretrained{folder / "b"}); }),
      Contains("definition is LanguageModel<") && Contains("Mlp") && Contains("one that a family can represent"));
  CHECK_FALSE(std::filesystem::exists(folder / "b"));
}

TEST_CASE("float16 files are read", "[families]") {
  const auto expected = numbers(load<Small, bfloat16>(Pretrained{test::fixture_folder("mamba")}));
  std::vector<std::uint16_t> halves(12, 0x3e00);  // 1.5
  CHECK(refusal([&](const test::Folder& folder) {
          rewrite(folder / "model.safetensors", [&](auto& tensors) {
            auto& norm = find(tensors, "backbone.norm_f.weight");
            norm.type = DataType::F16;
            norm.data = std::as_bytes(std::span(halves));
          });
          auto model = load<Small>(Pretrained{folder.path()});
          for (const float gain : model.parameter("norm_f.weight")) CHECK(gain == 1.5f);
        }).empty());
  CHECK(expected.size() == static_cast<std::size_t>(Small::parameters));
}

TEST_CASE("A config that disagrees is refused with field, values and the matching definition", "[families]") {
  const std::string fits =
      "LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, "
      "Expand<1>>>>";
  const auto nothing = [](const test::Folder&) {};
  using OtherState = LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<4>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherState>(nothing),
             Contains("config.json: layer 0: state_size is 3, which means State<3>; allowed: State<4>, as in the "
                      "definition; the definition that matches this checkpoint: " +
                      fits));
  using OtherDepth = LanguageModel<Vocabulary<16>, Width<12>, Repeat<3, Mamba<State<3>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherDepth>(nothing),
             Contains("num_hidden_layers is 2; allowed: 3, the definition's number of layers") && Contains(fits));
  using OtherHead = LanguageModel<Vocabulary<16>, Width<12>, Head, Mamba<>>;
  CHECK_THAT(refusal<OtherHead>(nothing), Contains("tie_word_embeddings is true, which means TiedHead; allowed: Head"));
  using OtherNorm =
      LanguageModel<Vocabulary<16>, Width<12>, PreNorm<NoNorm>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherNorm>(nothing),
             Contains("layer 0: layer_norm_epsilon is 1e-05, which means RmsNorm<>; allowed: "
                      "NoNorm"));
  using OtherKind = LanguageModel<Vocabulary<16>, Width<12>, Mamba<State<3>, Convolution<3>, Expand<1>>, Mlp<>>;
  CHECK_THAT(refusal<OtherKind>(nothing), Contains("layer 1: kind is Mamba; allowed: Mlp"));
  using Biased =
      LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, ProjectionBias>>>;
  CHECK_THAT(refusal<Biased>(nothing),
             Contains("use_bias is false, which means no ProjectionBias; allowed: ProjectionBias"));
}

TEST_CASE("Tensors that are missing, extra, renamed, misshaped or not floating-point are refused by name",
          "[families]") {
  const auto change = [](const auto& edit_tensors) {
    return [&](const test::Folder& folder) { rewrite(folder / "model.safetensors", edit_tensors); };
  };
  const std::string gain = "backbone.norm_f.weight";
  CHECK_THAT(refusal(change([&](auto& tensors) { find(tensors, gain).name = "backbone.norm.weight"; })),
             Contains("tensor \"backbone.norm_f.weight\" is missing") && Contains("of which \"backbone.norm.weight\""));
  CHECK_THAT(refusal(change([&](auto& tensors) { tensors.pop_back(); })), Contains("\" is missing"));
  CHECK_THAT(refusal(change([&](auto& tensors) {
               tensors.push_back(find(tensors, gain));
               tensors.back().name = "extra";
             })),
             Contains("tensor is \"extra\"; allowed: only the tensors of a mamba model"));
  CHECK_THAT(refusal(change([&](auto& tensors) {
               find(tensors, gain).shape = {3, 4};
             })),
             Contains("tensor \"backbone.norm_f.weight\": shape is [3, 4]; allowed: [12]"));
  CHECK_THAT(refusal(change([&](auto& tensors) { find(tensors, gain).type = DataType::I32; })),
             Contains("tensor \"backbone.norm_f.weight\": dtype is I32; allowed: F64, F32, F16 or BF16"));
  CHECK_THAT(refusal(change([&](auto& tensors) {
               tensors.push_back(find(tensors, "backbone.embeddings.weight"));
               tensors.back().name = "backbone.embedding.weight";
             })),
             Contains("another name of \"backbone.embeddings.weight\", which the checkpoint has as well"));
  // A tied head may be stored again with the same values.
  std::vector<float> other(16 * 12, 1.0f);
  CHECK(refusal([&](const test::Folder& folder) {
          rewrite(folder / "model.safetensors", [](auto& tensors) {
            tensors.push_back(find(tensors, "backbone.embeddings.weight"));
            tensors.back().name = "lm_head.weight";
          });
        }).empty());
  CHECK_THAT(refusal([&](const test::Folder& folder) {
               rewrite(folder / "model.safetensors", [&](auto& tensors) {
                 tensors.push_back(find(tensors, "backbone.embeddings.weight"));
                 tensors.back().name = "lm_head.weight";
                 tensors.back().data = std::as_bytes(std::span(other));
               });
             }),
             Contains("tensor \"lm_head.weight\" is different from \"backbone.embeddings.weight\""));
}

TEST_CASE("Checkpoints of a family's base model, which lack the head, are loaded", "[families]") {
  const auto rename = [](const char* file, const std::string& prefix) {
    return [=](const test::Folder& folder) {
      rewrite(folder / file, [&](auto& tensors) {
        for (auto& tensor : tensors) {
          if (tensor.name.starts_with(prefix)) tensor.name.erase(0, prefix.size());
        }
      });
    };
  };
  const char* file = "model.safetensors";
  CHECK(test::refusal(rename(file, "backbone.")).empty());
  CHECK(test::refusal<test::InnerFalconMamba>(rename(file, "backbone."), "falcon_mamba_inner").empty());
  CHECK(test::refusal<test::SmallMixtralWindow>(rename(file, "model."), "mixtral_window").empty());
  CHECK(test::refusal<test::SmallJambaDense>(rename(file, "model."), "jamba_dense").empty());
  CHECK(test::refusal<test::SmallQwen2>(rename(file, "model."), "qwen2").empty());
  // All names or none; and a base model has no untied head.
  CHECK_THAT(test::refusal([](const test::Folder& folder) {
               rewrite(folder / "model.safetensors",
                       [](auto& tensors) { find(tensors, "backbone.norm_f.weight").name = "norm_f.weight"; });
             }),
             Contains("tensor \"backbone.norm_f.weight\" is missing") && Contains("\"norm_f.weight\" belongs to no"));
  CHECK_THAT(test::refusal<test::SmallLlama>(
                 [](const test::Folder& folder) {
                   rewrite(folder / "model.safetensors", [](auto& tensors) {
                     std::erase_if(tensors, [](const auto& tensor) { return tensor.name == "lm_head.weight"; });
                     for (auto& tensor : tensors) tensor.name.erase(0, 6);
                   });
                 },
                 "llama"),
             Contains("tensor \"lm_head.weight\" is missing"));
}

TEST_CASE("Rotary frequencies in a file are ignored, as the families' code does", "[families]") {
  const std::vector<float> frequencies{1, 0.5f};
  const auto add = [&](const std::string& name) {
    return [&, name](const test::Folder& folder) {
      rewrite(folder / "model.safetensors", [&](auto& tensors) {
        tensors.push_back({name, DataType::F32, {2}, std::as_bytes(std::span(frequencies))});
      });
    };
  };
  for (const std::string name : {"model.layers.1.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq"}) {
    CHECK(test::refusal<test::SmallLlama>(add(name), "llama").empty());
    CHECK(test::refusal<test::SmallMistral>(add(name), "mistral").empty());
    CHECK(test::refusal<test::SmallQwen2>(add(name), "qwen2").empty());
    CHECK(test::refusal<test::SmallMixtral>(add(name), "mixtral").empty());
    CHECK_THAT(test::refusal(add(name)), Contains("tensor is \"" + name + "\""));
  }
  CHECK_THAT(test::refusal<test::SmallLlama>(add("model.inv_freq"), "llama"), Contains("tensor is \"model.inv_freq\""));
}

TEST_CASE("A failed call leaves the model unchanged", "[families]") {
  Model<Small> model(Seed{4});
  const auto before = numbers(model);
  CHECK_THROWS_AS(load(model, Pretrained{test::fixture_folder("falcon_mamba")}), std::runtime_error);
  CHECK_THROWS_AS(load(model, Pretrained{"/nowhere"}), std::runtime_error);
  CHECK(numbers(model) == before);
}
