// A moved-from model, and objects made with it.
#include <utility>
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/generate/scorer.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using Net = test::MixtureNet;

TEST_CASE("A model whose parameters were moved away reports it in every call", "[model]") {
  const auto gone = test::Contains("the model has no parameters");
  const std::vector<Token> tokens{1, 2, 3};
  const TokenBatch batch{tokens, tokens, {1, 3}};
  Model<Net> model(Seed{1});
  Trainer trainer(model), accumulated(model);
  Decoder decoder(model);
  Scorer scorer(model);
  const double loss = accumulated.accumulate(batch).prediction;
  decoder.step(1);
  Model<Net> other = std::move(model);

  Cpu device;
  Workspace<Net> workspace(device, {1, 3}, Purpose::training);
  States<Net> states;
  std::vector<float> outputs(39), values(static_cast<std::size_t>(Net::parameters));
  CHECK_THROWS_WITH(model.forward(workspace, tokens, {1, 3}, outputs), gone);
  CHECK_THROWS_WITH(model.forward_last(workspace, tokens, {1, 3}, std::span(outputs).first(13)), gone);
  CHECK_THROWS_WITH(model.step(workspace, states, std::span(tokens).first(1), std::span(outputs).first(13)), gone);
  CHECK_THROWS_WITH(model.loss(workspace, tokens, tokens, {1, 3}), gone);
  CHECK_THROWS_WITH(model.gradient(workspace, tokens, tokens, {1, 3}, values), gone);
  CHECK_THROWS_WITH(model.backward(workspace, outputs, values), gone);
  CHECK_THROWS_WITH(model.parameters(), gone);
  CHECK_THROWS_WITH(std::as_const(model).parameters(), gone);
  CHECK_THROWS_WITH(model.parameter("norm_f.weight"), gone);
  CHECK_THROWS_WITH(model.write(values), gone);
  CHECK_THROWS_WITH(model.read(values), gone);
  CHECK_THROWS_WITH(trainer.step(batch), gone);
  CHECK_THROWS_WITH(trainer.accumulate(batch), gone);
  CHECK_THROWS_WITH(trainer.evaluate(batch), gone);
  CHECK_THROWS_WITH(accumulated.update(), gone);
  CHECK_THROWS_WITH(decoder.prefill(tokens), gone);
  CHECK_THROWS_WITH(decoder.step(2), gone);
  CHECK_THROWS_WITH(scorer.text(tokens), gone);
  model = std::move(other);  // and back
  CHECK(trainer.evaluate(batch).prediction == loss);
  CHECK(accumulated.update().applied);
}
