// Experts inside Mamba blocks: which of their parameters a pass reads, and the sum of all experts.
#include <algorithm>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

/// Memory for parameters, of which whole pages can be made inaccessible: reading them terminates the program.
template <class S>
class Pages {
 public:
  explicit Pages(std::size_t count) : bytes_(count * sizeof(S)) {
    first_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(first_ != MAP_FAILED);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { ::munmap(first_, bytes_); }

  std::span<S> values() { return {static_cast<S*>(first_), bytes_ / sizeof(S)}; }

  /// Overwrites elements with NaNs and closes the pages that hold nothing else; returns how many these are.
  std::size_t close(Index first, Index count) {
    std::fill_n(values().begin() + first, count, test::poison<S>(1)[0]);
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t begin = (static_cast<std::size_t>(first) * sizeof(S) + page - 1) / page * page;
    const std::size_t end = static_cast<std::size_t>(first + count) * sizeof(S) / page * page;
    if (begin >= end) return 0;
    REQUIRE(::mprotect(static_cast<std::byte*>(first_) + begin, end - begin, PROT_NONE) == 0);
    return (end - begin) / page;
  }

 private:
  std::size_t bytes_;
  void* first_ = nullptr;
};

bool belongs(std::string_view name, RoutedProjection projection) {
  switch (projection) {
    case RoutedProjection::input:
      return name.find(".in_proj.input.") != name.npos;
    case RoutedProjection::gate:
      return name.find(".in_proj.gate.") != name.npos;
    case RoutedProjection::output:
      return name.find(".out_proj.") != name.npos;
    default:
      return true;
  }
}

/// Closes all experts that no token was sent to by the last call; returns how many pages these had.
template <class Definition, class S>
std::size_t close_others(const Workspace<Definition, S>& workspace, Pages<S>& pages) {
  std::size_t closed = 0;
  workspace.visit_routers([&](const RouterReport& router) {
    for (const Parameter& parameter : parameter_list<Definition>()) {
      const bool has_experts = parameter.rank == 3 && parameter.name.view().find("conv1d") == std::string_view::npos;
      if (!has_experts || !belongs(parameter.name.view(), router.projection)) continue;
      REQUIRE(parameter.shape[0] == static_cast<Index>(router.load.size()));
      const Index size = parameter.size() / parameter.shape[0];
      for (std::size_t e = 0; e < router.load.size(); ++e) {
        if (router.load[e] > 0) continue;
        closed += pages.close(parameter.offset + static_cast<Index>(e) * size, size);
      }
    }
  });
  return closed;
}

/// Checks that a call, after some steps, reads none of the experts that it does not choose.
template <class Definition, class S>
void check_reads(Shape shape) {
  INFO("B = " << shape.batch << ", L = " << shape.length << ", " << sizeof(S) << " bytes a parameter");
  using C = compute_t<S>;
  Cpu device(Threads{2});
  const Model<Definition, S> initial(Seed{5});
  Pages<S> pages(initial.parameters().size());
  std::copy(initial.parameters().begin(), initial.parameters().end(), pages.values().begin());
  const Model<Definition, S> model(pages.values());
  Workspace<Definition, S> workspace(device, {shape.batch, 6}, Purpose::inference);
  std::vector<Token> prompt, inputs;
  for (Index i = 0; i < shape.batch * 6; ++i) prompt.push_back(static_cast<Token>(i * i % Definition::vocabulary));
  for (Index i = 0; i < shape.tokens(); ++i) inputs.push_back(static_cast<Token>((3 + i) % Definition::vocabulary));
  States<Definition, S> before(shape.batch);
  auto logits = test::poison<C>(shape.batch * 6 * Definition::vocabulary);
  model.forward(workspace, prompt, {shape.batch, 6}, logits, &before);

  const auto run = [&](const Model<Definition, S>& on) {
    auto states = before;
    auto outputs = test::poison<C>(shape.tokens() * Definition::vocabulary);
    if (shape.length == 1) {
      on.step(workspace, states, inputs, outputs);
    } else {
      on.forward(workspace, inputs, shape, outputs, &states);
    }
    outputs.insert(outputs.end(), states.values().begin(), states.values().end());
    return outputs;
  };
  const auto expected = run(initial);
  CHECK(close_others<Definition>(workspace, pages) > 4);
  const auto found = run(model);
  CHECK((found.size() == expected.size() && std::memcmp(found.data(), expected.data(), found.size() * sizeof(C)) == 0));
}

template <class Block>
using ReadingNet = LanguageModel<Vocabulary<7>, Width<64>, Block>;
using OneRouter = ReadingNet<Mamba<State<2>, Inner<72>, InputExperts<6>, GateExperts<6>, OutputExperts<6>, TopK<2>>>;
using RouterEach = ReadingNet<
    Mamba<State<2>, Inner<72>, InputExperts<5>, GateExperts<7>, OutputExperts<6>, SeparateRouters, Hidden<48>>>;

}  // namespace

TEST_CASE("A pass reads only the chosen experts inside a Mamba block", "[model][mamba][moe]") {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 1}, Shape{1, 2}}) {
    check_reads<OneRouter, float>(shape);
    check_reads<RouterEach, float>(shape);
  }
  check_reads<OneRouter, bfloat16>({1, 1});
}

namespace {

template <class Block>
using SumNet = LanguageModel<Vocabulary<7>, Width<5>, Block>;
template <class... Options>
using SumBlock = Mamba<State<3>, Inner<6>, StepRank<2>, Options...>;

/// A block whose router is zero, so all of its experts have the same gate, against a plain block with the sums of their
/// matrices: `input`, `gate` and `output` are the weights of each expert of a projection.
template <class Block>
void check_sum(double input, double gate, double output) {
  using Routed = SumNet<Block>;
  using Plain = SumNet<SumBlock<>>;
  Model<Routed, double> routed(Seed{3});
  Model<Plain, double> plain(Uninitialised{});
  const std::string mixer = "layers.0.mixer.";
  std::vector<double> x, z;
  const auto sum = [&](const Parameter& of, double factor) {
    const auto values = routed.parameter(of.name.view());
    const Index count = of.rank == 3 ? of.shape[0] : 1, size = of.size() / count;
    std::vector<double> all(static_cast<std::size_t>(size));
    for (Index i = 0; i < of.size(); ++i) {
      all[static_cast<std::size_t>(i % size)] += factor * values[static_cast<std::size_t>(i)];
    }
    return all;
  };
  for (const Parameter& parameter : parameter_list<Routed>()) {
    const std::string name(parameter.name.view());
    const auto values = routed.parameter(name);
    if (name.ends_with("router.weight")) {
      std::fill(values.begin(), values.end(), 0);
    } else if (name == mixer + "in_proj.weight") {
      const auto both = sum(parameter, input);
      x.assign(both.begin(), both.begin() + 6 * 5);
      z.assign(both.begin() + 6 * 5, both.end());
    } else if (name == mixer + "in_proj.input.weight") {
      x = sum(parameter, input);
    } else if (name == mixer + "in_proj.gate.weight") {
      z = sum(parameter, gate);
    } else {
      const auto all = name == mixer + "out_proj.weight" ? sum(parameter, output)
                                                         : std::vector<double>(values.begin(), values.end());
      std::copy(all.begin(), all.end(), plain.parameter(name).begin());
    }
  }
  x.insert(x.end(), z.begin(), z.end());
  std::copy(x.begin(), x.end(), plain.parameter(mixer + "in_proj.weight").begin());

  Cpu device;
  const Shape shape{2, 5};
  const std::vector<Token> inputs{0, 1, 2, 3, 4, 5, 6, 5, 3, 1};
  Workspace<Routed, double> routed_workspace(device, shape, Purpose::inference);
  Workspace<Plain, double> plain_workspace(device, shape, Purpose::inference);
  auto found = test::poison<double>(shape.tokens() * 7), expected = found;
  routed.forward(routed_workspace, inputs, shape, found);
  plain.forward(plain_workspace, inputs, shape, expected);
  CHECK(test::relative_error(found, expected) < 1e-14);
}

}  // namespace

TEST_CASE("All experts of a Mamba block together, equally weighted, are the block with the sums of their matrices",
          "[model][mamba][moe]") {
  check_sum<SumBlock<InputExperts<4>, GateExperts<4>, OutputExperts<4>, TopK<4>>>(1, 1, 0.25);
  check_sum<SumBlock<InputExperts<3>, GateExperts<3>, TopK<3>>>(1.0 / 3, 1.0 / 3, 1);
  check_sum<SumBlock<GateExperts<3>, TopK<3>, SigmoidThenTopK>>(1, 0.5, 1);
  check_sum<SumBlock<InputExperts<2>, OutputExperts<2>, TopK<2>, SeparateRouters>>(0.5, 1, 0.5);
  check_sum<SumBlock<InputExperts<2>, OutputExperts<2>, TopK<2>, TopKThenSoftmax>>(1, 1, 0.5);
}
