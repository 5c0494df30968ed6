// Models without a norm before the head, which then reads the residual stream itself.
#include <algorithm>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

constexpr int V = 7, D = 5;
template <class... Options>
using Net = LanguageModel<Vocabulary<V>, Width<D>, Options..., Mlp<Hidden<4>, GeGlu>>;

/// Checks the logits of `tokens` with layers that add nothing, so the stream is a token's row of the embedding.
template <class Definition>
void check_head_reads_the_stream() {
  Model<Definition, double> model(Seed{1});
  const auto down = model.parameter("layers.0.mixer.down.weight");
  std::fill(down.begin(), down.end(), 0.0);
  const auto embedding = model.parameter("embedding.weight");
  // No norm hides the scale of the stream.
  for (double& x : embedding) x *= 100;
  const auto head = Definition::tied_head ? embedding : model.parameter("lm_head.weight");
  const std::vector<Token> tokens{3, 0, 6};
  const Shape shape{1, 3};
  Cpu device;
  Workspace<Definition, double> workspace(device, shape);
  std::vector<double> logits(3 * V), expected;
  model.forward(workspace, tokens, shape, logits);
  for (const Token token : tokens) {
    for (int v = 0; v < V; ++v) {
      double sum = 0;
      for (int i = 0; i < D; ++i) {
        sum += embedding[static_cast<std::size_t>(token * D + i)] * head[static_cast<std::size_t>(v * D + i)];
      }
      expected.push_back(sum);
    }
  }
  // Sums of five terms in another order.
  CHECK(test::relative_error(logits, expected) <= 1e-14);
}

}  // namespace

TEST_CASE("Without a final norm the head reads the residual stream", "[model]") {
  check_head_reads_the_stream<Net<FinalNorm<NoNorm>>>();
  check_head_reads_the_stream<Net<FinalNorm<NoNorm>, Head>>();
  for (const Parameter& parameter : parameter_list<Net<FinalNorm<NoNorm>, Head>>()) {
    CHECK(!parameter.name.view().starts_with("norm_f"));
  }
  CHECK(Net<>::parameters == Net<FinalNorm<NoNorm>>::parameters + D);
  CHECK(spelling<Net<FinalNorm<NoNorm>>>() != spelling<Net<>>());
}
