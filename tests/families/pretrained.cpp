// Checkpoints written and opened again, and folders that are not what they seem.
#include <cstdlib>

#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;
using test::find;
using test::rewrite;

namespace {

using Small = test::SmallMamba;
using Falcon = LanguageModel<Vocabulary<13>, Width<20>, Head,
                             Repeat<2, Mamba<State<3>, Expand<1>, InnerNorm<RmsNorm<NoGain, Epsilon<1, 1'000'000>>>>>>;
using Black = LanguageModel<Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>, Mamba<State<3>>,
                            Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias>, Mlp<Hidden<7>, GeGlu>>;

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

TEMPLATE_TEST_CASE("A model that is written and opened again is the same, in every type", "[families]", Small, Falcon,
                   Black) {
  const Model<TestType, double> original(Seed{3});
  const test::Folder folder;
  save(original, Pretrained{folder / "new"});
  CHECK(numbers(load<TestType, double>(Pretrained{folder / "new"})) == numbers(original));

  Model<TestType, bfloat16> narrow{Uninitialised{}};
  load(narrow, Pretrained{folder / "new"});
  save(narrow, Pretrained{folder / "new"});  // over the old one
  const auto wide = numbers(load<TestType, float>(Pretrained{folder / "new"}));
  for (std::size_t i = 0; i < wide.size(); ++i) {
    REQUIRE(wide[i] == float(bfloat16(static_cast<float>(numbers(original)[i]))));
    if (i > 500) break;
  }
}

TEST_CASE("A family is chosen by what it can say, or named", "[families]") {
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
  CHECK_THAT(test::message_of<std::invalid_argument>([&] { save(other, Pretrained{folder / "b"}); }),
             Contains("definition is LanguageModel<") && Contains("Mlp") && Contains("what a family can say"));
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

TEST_CASE("A config that disagrees is refused with field, values and the definition that fits", "[families]") {
  const std::string fits =
      "LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, "
      "Expand<1>>>>";
  const auto nothing = [](const test::Folder&) {};
  using OtherState = LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<4>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherState>(nothing),
             Contains("config.json: layer 0: state_size is 3, which is State<3>; allowed: State<4>, as the definition "
                      "says; the definition that fits this checkpoint: " +
                      fits));
  using OtherDepth = LanguageModel<Vocabulary<16>, Width<12>, Repeat<3, Mamba<State<3>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherDepth>(nothing),
             Contains("num_hidden_layers is 2; allowed: 3, as the definition has layers") && Contains(fits));
  using OtherHead = LanguageModel<Vocabulary<16>, Width<12>, Head, Mamba<>>;
  CHECK_THAT(refusal<OtherHead>(nothing), Contains("tie_word_embeddings is true, which is TiedHead; allowed: Head"));
  using OtherNorm =
      LanguageModel<Vocabulary<16>, Width<12>, PreNorm<NoNorm>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>>>>;
  CHECK_THAT(refusal<OtherNorm>(nothing), Contains("layer 0: layer_norm_epsilon is 1e-05, which is RmsNorm<>; allowed: "
                                                   "NoNorm"));
  using OtherKind = LanguageModel<Vocabulary<16>, Width<12>, Mamba<State<3>, Convolution<3>, Expand<1>>, Mlp<>>;
  CHECK_THAT(refusal<OtherKind>(nothing), Contains("layer 1: kind is Mamba; allowed: Mlp"));
  using Biased =
      LanguageModel<Vocabulary<16>, Width<12>, Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, ProjectionBias>>>;
  CHECK_THAT(refusal<Biased>(nothing),
             Contains("use_bias is false, which is no ProjectionBias; allowed: ProjectionBias"));
}

TEST_CASE("Tensors that are missing, extra, renamed, misshaped or no numbers are refused by name", "[families]") {
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
             Contains("tensor is \"extra\"; allowed: the tensors of a mamba model"));
  CHECK_THAT(refusal(change([&](auto& tensors) {
               find(tensors, gain).shape = {3, 4};
             })),
             Contains("tensor \"backbone.norm_f.weight\": shape is [3, 4]; allowed: [12]"));
  CHECK_THAT(refusal(change([&](auto& tensors) { find(tensors, gain).type = DataType::I32; })),
             Contains("tensor \"backbone.norm_f.weight\": dtype is I32; allowed: F64, F32, F16 and BF16"));
  CHECK_THAT(refusal(change([&](auto& tensors) {
               tensors.push_back(find(tensors, "backbone.embeddings.weight"));
               tensors.back().name = "backbone.embedding.weight";
             })),
             Contains("there beside \"backbone.embeddings.weight\""));
  // A tied head may be there again, with the same numbers.
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
             Contains("tensor \"lm_head.weight\" is other numbers than \"backbone.embeddings.weight\""));
}

TEST_CASE("A failed call leaves the model as it was", "[families]") {
  Model<Small> model(Seed{4});
  const auto before = numbers(model);
  CHECK_THROWS_AS(load(model, Pretrained{test::fixture_folder("falcon_mamba")}), std::runtime_error);
  CHECK_THROWS_AS(load(model, Pretrained{"/nowhere"}), std::runtime_error);
  CHECK(numbers(model) == before);
}

// Run by hand, for tests/fixtures/models.py --check: see tests/fixtures/README.md.
TEST_CASE("Checkpoints for the families' own code to open", "[.][writes]") {
  const char* place = std::getenv("MOE_MAMBA_WRITE_CHECKPOINTS");
  REQUIRE(place != nullptr);
  const auto write = [&](const auto& model, const std::string& name, auto definition) {
    using Definition = typename decltype(definition)::type;
    using S = typename std::decay_t<decltype(model)>::Storage;
    using C = compute_t<S>;
    const auto folder = std::filesystem::path(place) / name;
    save(model, Pretrained{folder});
    std::vector<Token> inputs;
    for (int i = 0; i < 24; ++i) inputs.push_back(static_cast<Token>((i * 7 + i / 5) % Definition::vocabulary));
    Cpu device;
    Workspace<Definition, S> workspace(device, {2, 12});
    std::vector<C> logits(24 * static_cast<std::size_t>(Definition::vocabulary));
    model.forward(workspace, inputs, {2, 12}, logits);
    save_safetensors(
        folder / "expected.safetensors",
        std::vector<TensorSource>{
            {"inputs", DataType::I32, {2, 12}, std::as_bytes(std::span(inputs))},
            {"logits", data_type_of<C>, {2, 12, Definition::vocabulary}, std::as_bytes(std::span(logits))}});
  };
  write(Model<Small>(Seed{1}), "mamba", std::type_identity<Small>{});
  write(Model<Small, bfloat16>(Seed{1}), "mamba_bfloat16", std::type_identity<Small>{});
  write(Model<Falcon, double>(Seed{1}), "falcon_mamba", std::type_identity<Falcon>{});
  using NoMlp = LanguageModel<Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>, Mamba<State<3>>,
                              Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias>>;
  write(Model<NoMlp>(Seed{1}), "black_mamba", std::type_identity<NoMlp>{});
  using Biased =
      LanguageModel<Vocabulary<11>, Width<10>, Head, PreNorm<RmsNorm<Epsilon<1, 1000>>>,
                    FinalNorm<RmsNorm<Epsilon<1, 1000>>>, Mamba<State<3>, ProjectionBias, NoConvolutionBias>>;
  write(Model<Biased>(Seed{1}), "mamba_biases", std::type_identity<Biased>{});
}
