// Scratch memory of a device's threads is part of the workspace, of the size that a definition needs, and sufficient.
#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "support/allocations.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

/// Runs all calls of a model on batches of some shapes, with a workspace in memory of exactly its size, and counts
/// allocations: a device allocates its own scratch if that of the workspace is too small.
template <class Definition, class S>
void check_is_enough(Shape largest, const std::vector<Shape>& others, int threads) {
  INFO(largest.batch << " x " << largest.length << " on " << threads << " threads");
  using C = compute_t<S>;
  Cpu device(Threads{threads});
  const auto values = test::parameters<Definition>();
  std::vector<S> stored(values.size());
  std::transform(values.begin(), values.end(), stored.begin(), [](double value) { return S(value); });
  Model<Definition, S> model{std::span<S>(stored)};
  std::vector<C> gradients(stored.size());
  for (const Purpose purpose : {Purpose::inference, Purpose::training}) {
    constexpr std::size_t guard = 256;
    const std::size_t bytes = Workspace<Definition, S>::bytes(device, largest, purpose);
    const HostMemory memory(bytes + guard);
    std::fill_n(memory.data() + bytes, guard, std::byte{0x5a});
    Workspace<Definition, S> workspace(device, largest, purpose, {memory.data(), bytes});
    auto shapes = others;
    shapes.insert(shapes.begin(), largest);
    for (const Shape& shape : shapes) {
      if (!workspace.fits(shape)) continue;
      const auto data = test::data<Definition, C>(shape);
      const std::span inputs(data.inputs), targets(data.targets);
      std::vector<C> outputs(static_cast<std::size_t>(shape.tokens() * Definition::output_width));
      const test::AllocationCounter allocations;
      model.forward(workspace, inputs, shape, outputs);
      (void)model.loss(workspace, inputs, targets, shape);
      if (purpose == Purpose::training) {
        model.forward(workspace, inputs, shape, outputs);
        model.backward(workspace, outputs, gradients);
        model.gradient(workspace, inputs, targets, shape, gradients);
      }
      CHECK(allocations.count() == 0);
    }
    CHECK(std::all_of(memory.data() + bytes, memory.data() + bytes + guard,
                      [](std::byte byte) { return byte == std::byte{0x5a}; }));
  }
}

using Everything =
    LanguageModel<Vocabulary<131>, Width<40>, Head,
                  Repeat<2, Mamba<>, Moe<Experts<4>, TopK<2>, Hidden<70>, SwiGlu, SharedExperts<1>, ZLoss<1, 100>>>,
                  LayerNorm<>, Parallel<Mamba<State<5>>, Moe<Experts<3>, Capacity<1>>>, Mlp<>,
                  Attention<Heads<4>, KeyValueHeads<2>, Context<150>, Biases>>;
using ManyExperts = LanguageModel<Vocabulary<5>, Width<8>, Moe<Experts<300>, TopK<1>, Hidden<4>>>;
using RoutedMamba =
    LanguageModel<Vocabulary<5>, Width<8>,
                  Mamba<State<1>, Inner<300>, InputExperts<3>, GateExperts<3>, OutputExperts<3>, TopK<2>>,
                  Mamba<State<1>, Inner<90>, OutputExperts<200>, SeparateRouters, Hidden<150>>>;
using Normed =
    SequenceModel<Inputs<1>, Outputs<1>, Width<1500>, PreNorm<LayerNorm<>>, FinalNorm<LayerNorm<>>, Mlp<Hidden<1>>>;
using Wide = SequenceModel<Inputs<700>, Outputs<1>, Width<6>, Mamba<State<1>, Expand<1>>>;

}  // namespace

TEMPLATE_TEST_CASE("a workspace has all that the threads of its device need", "[model]", float, double, bfloat16) {
  const std::vector<Index> lengths{150, 0, 1, 9}, many(130, 1), one{50};
  for (const int threads : {1, 3}) {
    for (const Shape largest : {Shape{1, 1}, Shape{2, 7}, Shape{12, 4}, Shape{4, 80}}) {
      const std::vector<Shape> others{
          {1, 1}, {2, 1}, {1, 7}, {3, 33}, Shape::packed(lengths), Shape::packed(many), Shape::packed(one)};
      check_is_enough<Everything, TestType>(largest, others, threads);
      check_is_enough<ManyExperts, TestType>(largest, others, threads);
      check_is_enough<RoutedMamba, TestType>(largest, others, threads);
      check_is_enough<Normed, TestType>(largest, others, threads);
      check_is_enough<Wide, TestType>(largest, others, threads);
    }
  }
}

TEST_CASE("a small model takes little memory for each thread", "[model]") {
  using Small = SequenceModel<Inputs<4>, Outputs<2>, Width<16>, Repeat<2, Mamba<State<8>>, Mlp<>>>;
  Cpu one(Threads{1}), four(Threads{4});
  const auto bytes = [](Cpu& device, Purpose purpose) { return Workspace<Small>::bytes(device, {1, 1}, purpose); };
  for (const Purpose purpose : {Purpose::inference, Purpose::training}) {
    CHECK(bytes(four, purpose) > bytes(one, purpose));
    // Each takes memory in proportion to the packet: at most 2500 of them, whereas any operation may take 2 MiB.
    CHECK(bytes(four, purpose) - bytes(one, purpose) <= 3 * 2500 * sizeof(cpu::Packet<float>));
  }
}

namespace {

/// A layer that multiplies by its own matrix and declares too little scratch per thread, or leaves it to the default
/// bound.
enum class Declares { nothing, too_little };

template <Declares declared, int D>
struct ProductLayer : LayerDefaults {
  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind) : w(bind.matrix("w", D, D, Initializer::uniform(D))) {}
    typename Bind::Matrix w;
  };
  static constexpr Index active_parameters = parameters_of<ProductLayer>;
  static constexpr double flops_per_token = 2.0 * D * D;
  template <class C>
  static std::size_t thread_scratch(const auto&, Shape, bool) requires(declared == Declares::too_little) {
    return 64;
  }
  static void forward(auto run, const auto& w, NoBuffers, auto x, auto y) { linear(run.device, x, w.w, y); }
  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, NoBuffers, MatrixView<const C> x,
                       MatrixView<const C> dy, MatrixView<C> dx) {
    linear_backward_weight<S>(run.device, dy, x, g.w);
    linear_backward_input(run.device, dy, w.w, dx, Into::assign);
  }
};

template <Declares declared>
struct Product {
  static constexpr std::string_view spelling = declared == Declares::nothing ? "test::Product<0>" : "test::Product<1>";
  template <int D>
  using Layer = ProductLayer<declared, D>;
};

template <Declares declared>
std::pair<double, long> loss_and_allocations(int calls) {
  using Net = SequenceModel<Inputs<2>, Outputs<2>, Width<200>, Product<declared>>;
  Cpu device(Threads{2});
  Bench<Net, float> bench(device, {1, 100}, test::parameters<Net>());
  const auto data = test::data<Net, float>({1, 100});
  std::vector<float> gradients(static_cast<std::size_t>(Net::parameters));
  const test::AllocationCounter allocations;
  double loss = 0;
  for (int call = 0; call < calls; ++call) {
    loss = bench.model.gradient(bench.workspace, std::span(data.inputs), std::span(data.targets), data.shape, gradients)
               .prediction;
  }
  return {loss, allocations.count()};
}

}  // namespace

TEST_CASE("layers that do not declare their scratch per thread have enough", "[model][user]") {
  const auto silent = loss_and_allocations<Declares::nothing>(2), once = loss_and_allocations<Declares::too_little>(1),
             twice = loss_and_allocations<Declares::too_little>(2);
  CHECK(silent.second == 0);
  CHECK(once.second == 1);  // the device's own
  CHECK(twice.second == 1);
  CHECK(silent.first == twice.first);
}
