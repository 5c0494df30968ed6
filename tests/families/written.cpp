// Checkpoints that the library writes: opened again here, and by the families' own code.
#include <cstdlib>
#include <type_traits>

#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

using Black = LanguageModel<Vocabulary<17>, Width<12>, FinalNorm<LayerNorm<>>, Mamba<State<3>>,
                            Moe<Experts<5>, Hidden<7>, GeGlu, SigmoidThenTopK, RouterBias>, Mlp<Hidden<7>, GeGlu>>;

template <int Steps>
using QwenAttention = Attention<Heads<2>, KeyValueHeads<1>, Context<Steps>, InputBiases>;
using QwenOfTwoContexts =
    LanguageModel<Vocabulary<9>, Width<8>, QwenAttention<3>, Mlp<Hidden<5>, SwiGlu>, QwenAttention<20>,
                  Mlp<Hidden<5>, SwiGlu>, QwenAttention<3>, Mlp<Hidden<5>, SwiGlu>>;

using LlamaOfGelu =
    LanguageModel<Vocabulary<9>, Width<8>, Head, Repeat<2, Attention<Heads<2>, Context<20>>, Mlp<Hidden<5>, GeGlu>>>;
using MixtralOfGelu = LanguageModel<Vocabulary<9>, Width<8>, Attention<Heads<2>, Context<20>>,
                                    Moe<Experts<3>, TopK<2>, Hidden<5>, GeGlu, TopKThenSoftmax>>;

template <class Definition, class S>
std::vector<S> numbers(const Model<Definition, S>& model) {
  return {model.parameters().begin(), model.parameters().end()};
}

template <class Definition>
void check_round_trip() {
  const Model<Definition, double> original(Seed{3});
  const test::Folder folder;
  save(original, Pretrained{folder / "new"});
  CHECK(numbers(load<Definition, double>(Pretrained{folder / "new"})) == numbers(original));
  INFO(test::read_bytes(folder / "new/config.json"));
  const families::CheckpointFolder checkpoint(folder / "new");
  CHECK(checkpoint.architecture().spelling() == families::architecture_of(families::Of<Definition>{}).spelling());

  Model<Definition, bfloat16> narrow{Uninitialised{}};
  load(narrow, Pretrained{folder / "new"});
  save(narrow, Pretrained{folder / "new"});  // over the old one
  std::vector<float> rounded;
  for (const double value : numbers(original)) rounded.push_back(float(bfloat16(static_cast<float>(value))));
  CHECK(numbers(load<Definition, float>(Pretrained{folder / "new"})) == rounded);
}

template <class Definition>
std::string family_written() {
  const test::Folder folder;
  save(Model<Definition>(Seed{3}), Pretrained{folder / "new"});
  return families::CheckpointFolder(folder / "new").family().name;
}

}  // namespace

TEMPLATE_TEST_CASE("A model is unchanged after being written and read, in every type", "[families]", test::SmallMamba,
                   test::SmallFalconMamba, Black) {
  check_round_trip<TestType>();
}

TEMPLATE_TEST_CASE("A model with attention is unchanged after being written and read, in every type", "[families]",
                   test::SmallMixtral, test::SmallMixtralWindow, test::SmallJamba, test::SmallJambaDense,
                   test::JambaOfMamba, test::JambaOfAttention, test::SmallLlama, test::SmallMistral, test::SmallQwen2,
                   QwenOfTwoContexts, LlamaOfGelu, MixtralOfGelu) {
  check_round_trip<TestType>();
}

TEST_CASE("A model with attention is written as the family that can represent it", "[families]") {
  CHECK(family_written<test::SmallMixtral>() == "mixtral");
  CHECK(family_written<test::SmallJamba>() == "jamba");
  CHECK(family_written<test::SmallMistral>() == "mistral");
  CHECK(family_written<test::SmallLlama>() == "llama");
  CHECK(family_written<test::SmallQwen2>() == "qwen2");
  // Attention at layers 0, 1 and 3 is not periodic.
  using Mixer = Attention<Heads<2>, Context<9>, NoPositions>;
  using Ssm = Mamba<State<2>, InnerNorm<RmsNorm<>>>;
  using Dense = Mlp<Hidden<5>, SwiGlu>;
  using Irregular = LanguageModel<Vocabulary<9>, Width<6>, Mixer, Dense, Mixer, Dense, Ssm, Dense, Mixer, Dense>;
  const test::Folder folder;
  CHECK_THAT(
      test::message_of<std::invalid_argument>([&] { save(Model<Irregular>(Seed{1}), Pretrained{folder / "new"}); }),
      Contains("jamba: layer 4: kind would be Attention, not Mamba"));
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
}

// Run by hand, for tests/fixtures/models.py --check: see tests/fixtures/README.md.
TEST_CASE("Checkpoints for the families' own code to open", "[.][writes]") {
  const char* root = std::getenv("MOE_MAMBA_WRITE_CHECKPOINTS");
  REQUIRE(root != nullptr);
  const auto write = [&](const auto& model, const std::string& name, auto definition) {
    using Definition = typename decltype(definition)::type;
    using S = typename std::decay_t<decltype(model)>::Storage;
    using C = compute_t<S>;
    const auto folder = std::filesystem::path(root) / name;
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
  // Those of the fixtures' folders have no gain of 1 and no bias of 0.
  const auto write_fixture = [&](const std::string& name, auto definition) {
    using Definition = typename decltype(definition)::type;
    write(load<Definition>(Pretrained{test::fixture_folder(name)}), name, definition);
  };
  write_fixture("mamba", std::type_identity<test::SmallMamba>{});
  write(load<test::SmallMamba, bfloat16>(Pretrained{test::fixture_folder("mamba")}), "mamba_bfloat16",
        std::type_identity<test::SmallMamba>{});
  write(Model<test::SmallFalconMamba, double>(Seed{1}), "falcon_mamba", std::type_identity<test::SmallFalconMamba>{});
  write(Model<test::OtherBlackMamba>(Seed{1}), "black_mamba", std::type_identity<test::OtherBlackMamba>{});
  write(Model<test::OtherMambaWithBiases>(Seed{1}), "mamba_biases", std::type_identity<test::OtherMambaWithBiases>{});
  write_fixture("mixtral", std::type_identity<test::SmallMixtral>{});
  write_fixture("mixtral_window", std::type_identity<test::SmallMixtralWindow>{});
  write(load<test::SmallMixtral, bfloat16>(Pretrained{test::fixture_folder("mixtral")}), "mixtral_bfloat16",
        std::type_identity<test::SmallMixtral>{});
  write_fixture("jamba", std::type_identity<test::SmallJamba>{});
  write_fixture("jamba_dense", std::type_identity<test::SmallJambaDense>{});
  write(Model<test::JambaOfMamba>(Seed{1}), "jamba_of_mamba", std::type_identity<test::JambaOfMamba>{});
  write(Model<test::JambaOfAttention>(Seed{1}), "jamba_of_attention", std::type_identity<test::JambaOfAttention>{});
  write_fixture("llama", std::type_identity<test::SmallLlama>{});
  write_fixture("mistral", std::type_identity<test::SmallMistral>{});
  write_fixture("qwen2", std::type_identity<test::SmallQwen2>{});
}
