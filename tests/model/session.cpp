// Sessions: workspaces in the caller's memory, work between passes, and the caller's normalisers.
#include "moe_mamba/model/session.hpp"

#include <cstddef>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "model/passes.hpp"
#include "moe_mamba/model/model.hpp"
#include "support/backend.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

using Memory = test::Backend::Memory;

template <class Definition, class C>
std::vector<C> gradient(const test::ModelOf<Definition, C>& model, Workspace<Definition, C, test::Backend>& workspace,
                        const test::Data<Definition, C>& data, Index first, Index count, Index normaliser) {
  using Input = InputOf<Definition, C>;
  const auto part = [&](const std::vector<Input>& numbers) {
    const std::size_t row = numbers.size() / static_cast<std::size_t>(data.shape.batch);
    return std::span<const Input>(numbers).subspan(static_cast<std::size_t>(first) * row,
                                                   static_cast<std::size_t>(count) * row);
  };
  Array<C, Memory> gradients(static_cast<std::size_t>(Definition::parameters));
  model.gradient(workspace, part(data.inputs), part(data.targets), {count, data.shape.length}, gradients, nullptr,
                 nullptr, normaliser);
  std::vector<C> values(gradients.size());
  gradients.read(values);
  return values;
}

}  // namespace

TEMPLATE_TEST_CASE("a workspace in the caller's memory behaves as one in its own", "[model]", test::TrainedNet,
                   test::FilterNet) {
  using Net = TestType;
  const test::ModelOf<Net> model(Seed{1});
  auto device = test::open();
  const auto data = test::data<Net, float>({3, 7});
  using WorkspaceType = Workspace<Net, float, test::Backend>;
  const std::size_t bytes = WorkspaceType::bytes(device, {3, 7}, Purpose::training);
  const Memory block(bytes + 64);
  using Span = SpanOf<std::byte, Memory>;
  WorkspaceType own(device, {3, 7}, Purpose::training);
  WorkspaceType borrowed(device, {3, 7}, Purpose::training, Span(block.data() + 64, bytes));
  CHECK(gradient<Net, float>(model, borrowed, data, 0, 3, 0) == gradient<Net, float>(model, own, data, 0, 3, 0));
  CHECK(borrowed.losses().total() == own.losses().total());

  const auto refused = [&](std::size_t offset, std::size_t size) {
    WorkspaceType workspace(device, {3, 7}, Purpose::training, Span(block.data() + offset, size));
  };
  CHECK_THROWS_WITH(refused(0, bytes - 1), "memory.size() is " + std::to_string(bytes - 1) +
                                               "; allowed: " + std::to_string(bytes) + " bytes or more for this shape");
  CHECK_THROWS_WITH(refused(8, bytes), "memory.data() is unaligned; allowed: aligned to 64 bytes");
}

TEMPLATE_TEST_CASE("gradients of parts, each normalised by all targets, add up to that of the whole", "[model]",
                   test::UnbalancedNet, test::FilterNet) {
  using Net = TestType;
  const test::ModelOf<Net, double> model(Seed{1});
  auto device = test::open();
  auto data = test::data<Net, double>({5, 6});
  if constexpr (TokenDefinition<Net>) data.targets[3] = data.targets[17] = masked_target;
  Workspace<Net, double, test::Backend> workspace(device, {5, 6}, Purpose::training);
  const auto whole = gradient<Net, double>(model, workspace, data, 0, 5, 0);
  const Index targets = workspace.losses().targets;
  auto sum = gradient<Net, double>(model, workspace, data, 0, 2, targets);
  const auto rest = gradient<Net, double>(model, workspace, data, 2, 3, targets);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += rest[i];
  CHECK(test::relative_error(sum, whole) < 1e-13);
  CHECK_THROWS_WITH((gradient<Net, double>(model, workspace, data, 0, 2, -1)), test::Contains("normaliser is -1"));
}

TEMPLATE_TEST_CASE("each gradient is announced once, from the last to the first, and does not change any more",
                   "[model]", test::TrainedNet, test::OddNet, test::ManyWaysNet, test::SeriesNet) {
  using Net = TestType;
  const test::ModelOf<Net, double> model(Seed{1});
  auto device = test::open();
  const auto data = test::data<Net, double>({3, 4});
  Workspace<Net, double, test::Backend> workspace(device, {3, 4}, Purpose::training);
  struct Formed {
    Array<double, Memory> gradients{static_cast<std::size_t>(Net::parameters)};
    test::Backend& device;
    std::vector<double> seen = std::vector<double>(gradients.size());
    Index next = Net::parameters, parts = 0;
  } formed{.device = device};
  const GradientReady ready{[](void* context, Index begin, Index end) {
                              Formed& all = *static_cast<Formed*>(context);
                              CHECK(end == all.next);
                              all.next = begin;
                              ++all.parts;
                              test::wait(all.device);
                              Memory::read(all.seen.data() + begin, all.gradients.data() + begin,
                                           static_cast<std::size_t>(end - begin) * sizeof(double));
                            },
                            &formed};
  {
    Session session(workspace, model.parameters().data());
    using Input = InputOf<Net, double>;
    const SessionBatch<Net, double> batch{data.shape,
                                          session.stage_inputs(std::span<const Input>(data.inputs), data.shape),
                                          session.stage_targets(std::span<const Input>(data.targets), data.shape)};
    session.forward(batch, formed.gradients.data(), Into::assign);
    session.backward(batch, formed.gradients.data(), Into::assign, {}, ready);
  }
  CHECK(formed.next == 0);
  CHECK(formed.parts >= 4);
  test::wait(device);
  std::vector<double> last(formed.seen.size());
  formed.gradients.read(last);
  CHECK(formed.seen == last);
}

TEST_CASE("a session keeps others from its workspace and its device until it ends", "[model]") {
  using Net = test::TrainedNet;
  const test::ModelOf<Net> model(Seed{1});
  auto device = test::open();
  Workspace<Net, float, test::Backend> workspace(device, {1, 2}), other(device, {1, 2});
  const std::vector<Token> tokens{1, 2};
  std::vector<float> outputs(static_cast<std::size_t>(2 * Net::output_width));
  const auto forward = [&](auto& on) { model.forward(on, std::span<const Token>(tokens), {1, 2}, outputs); };
  {
    const Session session(workspace, model.parameters().data());
    CHECK_THROWS_WITH(forward(workspace), test::Contains("the workspace is in the middle of another call"));
    CHECK_THROWS_WITH(forward(other), test::Contains("the device is in the middle of another call"));
  }
  forward(workspace);
  forward(other);
}
