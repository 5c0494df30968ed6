// Eigen's arrays as inputs and outputs of models, and the library's matrices as Eigen's, without copies.
#include "moe_mamba/eigen.hpp"

#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

using Closure = SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Mamba<State<3>>>;

TEST_CASE("a step on Eigen's arrays equals that on the same numbers, with a column per sequence", "[model]") {
  constexpr Index cells = 7;
  const Model<Closure, double> model(Seed{1});
  Cpu device;
  Workspace<Closure, double> workspace(device, {cells, 1});
  Eigen::MatrixXd inputs(3, cells), outputs(2, cells);
  const auto numbers = test::uniform<double>(3 * cells, 4);
  for (Index cell = 0; cell < cells; ++cell) {
    for (Index i = 0; i < 3; ++i) inputs(i, cell) = numbers[static_cast<std::size_t>(3 * cell + i)];
  }
  States<Closure, double> states(cells), others(cells);
  model.step(workspace, states, as_span(inputs), as_span(outputs));
  std::vector<double> expected(2 * cells);
  model.step(workspace, others, numbers, expected);
  for (Index cell = 0; cell < cells; ++cell) {
    for (Index o = 0; o < 2; ++o) CHECK(outputs(o, cell) == expected[static_cast<std::size_t>(2 * cell + o)]);
  }
  CHECK(states == others);
}

TEST_CASE("parameters are Eigen matrices, and Eigen's product agrees with ours up to rounding", "[model]") {
  Model<Closure, double> model(Seed{1});
  const auto weight = as_eigen(matrix(model.parameter("input.weight").data(), Index{5}, Index{3}));
  CHECK(&weight(4, 2) == model.parameter("input.weight").data() + 14);
  const auto x = test::uniform<double>(4 * 6, 2);
  const MatrixView<const double> block{x.data() + 1, 4, 3, 6};  // three columns of six
  Cpu device;
  std::vector<double> y(4 * 5);
  linear(device, block, MatrixView<const double>(matrix(weight.data(), Index{5}, Index{3})),
         matrix(y.data(), Index{4}, Index{5}));
  const Eigen::MatrixXd expected = as_eigen(block) * weight.transpose();
  const auto actual = as_eigen(matrix(y.data(), Index{4}, Index{5}));
  CHECK((actual - expected).cwiseAbs().maxCoeff() < 1e-15);
}
