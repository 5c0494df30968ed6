// Mamba blocks whose projections have experts against an implementation in PyTorch: tests/fixtures/mamba_experts.py
// documents what was computed, and its error.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "moe_mamba/families/pretrained.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/folder.hpp"
#include "support/reference_file.hpp"

using namespace moe_mamba;
using test::ReferenceFile;

namespace {

/// All parameters, in the definition's order. Each has a tensor, and every tensor is used.
template <class Definition>
std::vector<double> parameters(const ReferenceFile& reference) {
  std::vector<double> all;
  int used = 0, given = 0;
  for (const Parameter& parameter : parameter_list<Definition>()) {
    const auto values = reference.numbers("weight." + std::string(parameter.name.view()));
    REQUIRE(values.size() == static_cast<std::size_t>(parameter.size()));
    all.insert(all.end(), values.begin(), values.end());
    ++used;
  }
  for (const auto& tensor : reference.file().tensors()) given += tensor.name.starts_with("weight.") ? 1 : 0;
  CHECK(used == given);
  return all;
}

/// Checks logits of whole sequences and, unless capacity couples the tokens of a call, step by step.
template <class Definition, class S, class Device>
void check_logits(const Model<Definition, S, Device>& model, Device& device, const ReferenceFile& reference,
                  bool steps) {
  using C = compute_t<S>;
  constexpr Index V = Definition::vocabulary;
  const Shape shape = reference.shape("inputs");
  const auto inputs = reference.tokens("inputs");
  Workspace<Definition, S, Device> workspace(device, shape, Purpose::inference);
  auto logits = test::poison<C>(shape.tokens() * V);
  model.forward(workspace, inputs, shape, logits);
  CHECK(test::relative_error(logits, reference.numbers("logits")) <= reference.bound<S>("logits"));
  if (!steps) return;
  States<Definition, S> states(shape.batch);
  auto next = test::poison<C>(shape.batch * V);
  for (Index t = 0; t < shape.length; ++t) {
    std::vector<Token> tokens;
    for (Index b = 0; b < shape.batch; ++b) tokens.push_back(inputs[static_cast<std::size_t>(b * shape.length + t)]);
    model.step(workspace, states, tokens, next);
    for (Index b = 0; b < shape.batch; ++b) {
      std::copy_n(next.begin() + b * V, V, logits.begin() + (b * shape.length + t) * V);
    }
  }
  CHECK(test::relative_error(logits, reference.numbers("logits")) <= reference.bound<S>("logits"));
}

template <class Definition, class S, class Device>
void check_passes(Device& device, const ReferenceFile& reference, bool steps) {
  INFO(sizeof(S) << " bytes a parameter");
  using C = compute_t<S>;
  const Shape shape = reference.shape("inputs");
  Model<Definition, S, Device> model(Uninitialised{});
  model.write(test::converted<S>(parameters<Definition>(reference)));
  check_logits(model, device, reference, steps);

  Workspace<Definition, S, Device> workspace(device, shape, Purpose::training);
  std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
  const Losses losses =
      model.gradient(workspace, reference.tokens("inputs"), reference.tokens("targets"), shape, gradients);
  const auto check = [&](const std::string& tensor, const auto& found) {
    INFO(tensor);
    CHECK(test::relative_error(found, reference.numbers(tensor)) <= reference.bound<S>(tensor));
  };
  check("loss", std::vector<double>{losses.prediction});
  check("auxiliary", std::vector<double>{losses.auxiliary});
  for (const Parameter& parameter : parameter_list<Definition>()) {
    const auto first = gradients.begin() + parameter.offset;
    check("gradient." + std::string(parameter.name.view()), std::vector<C>(first, first + parameter.size()));
  }
  std::vector<double> dropped;
  workspace.visit_routers([&](const RouterReport& router) {
    const std::vector<double> load(router.load.begin(), router.load.end());
    CHECK(load == reference.numbers("load." + std::to_string(dropped.size())));
    dropped.push_back(router.dropped);
  });
  CHECK(dropped == reference.numbers("dropped"));
}

template <class Definition>
void check_experts(const std::string& name, bool steps = true) {
  const ReferenceFile reference(test::fixture_folder("mamba_experts") / (name + ".safetensors"));
  Cpu cpu(Threads{2});
  reference::Device naive;
  check_passes<Definition, double>(cpu, reference, steps);
  check_passes<Definition, double>(naive, reference, steps);
  check_passes<Definition, float>(cpu, reference, steps);
}

template <class... Options>
using Block = Mamba<State<3>, Inner<6>, StepRank<2>, BalanceLoss<1, 5>, Options...>;

template <class... Layers>
using Net = LanguageModel<Vocabulary<11>, Width<5>, Layers...>;

}  // namespace

TEST_CASE("Mamba blocks with one router and one expert per token match PyTorch, and their gradients",
          "[families][mamba][moe]") {
  check_experts<Net<Block<InputExperts<4>, GateExperts<4>, OutputExperts<4>>,
                    Block<GateExperts<3>, OutputExperts<3>, ZLoss<1, 10>>>>("one_router");
}

TEST_CASE("Mamba blocks with one router and two experts per token match PyTorch, and their gradients",
          "[families][mamba][moe]") {
  check_experts<Net<Block<InputExperts<4>, GateExperts<4>, OutputExperts<4>, TopK<2>, ZLoss<1, 10>>,
                    Block<InputExperts<3>, GateExperts<3>, TopK<2>, TopKThenSoftmax>>>("one_router_top_2");
}

TEST_CASE("Mamba blocks with a router per projection, ReLU experts and limited capacity match PyTorch",
          "[families][mamba][moe]") {
  using Paper = Block<InputExperts<2>, GateExperts<3>, OutputExperts<4>, SeparateRouters, Hidden<7>, Capacity<1>>;
  using Output = Block<OutputExperts<4>, SeparateRouters, Hidden<7>, Capacity<1>>;
  check_experts<Net<Paper, Output>>("router_each", false);
}

TEST_CASE("No public family has experts inside its Mamba blocks, and its files are not opened or written as if it had",
          "[families][mamba][moe]") {
  // The shapes of the fixture, except for the experts.
  using Routed = LanguageModel<Vocabulary<16>, Width<12>,
                               Repeat<2, Mamba<State<3>, Convolution<3>, Expand<1>, StepRank<1>, OutputExperts<2>>>>;
  CHECK_THROWS_WITH(load<Routed>(Pretrained{test::fixture_folder("mamba")}),
                    test::Contains("layer 0: kind is Mamba") && test::Contains("a Mamba block with experts"));
  const test::Folder folder;
  const Model<Routed> model(Seed{1});
  CHECK_THROWS_AS(save(model, Pretrained{folder / "written"}), std::invalid_argument);
  CHECK_THROWS_WITH(
      save(model, Pretrained{folder / "written"}),
      test::Contains("definition is LanguageModel<Vocabulary<16>, Width<12>") &&
          test::Contains("allowed: one that a family can represent; none has a Mamba block with experts"));
  CHECK_FALSE(std::filesystem::exists(folder / "written"));
}
