// Models on a device: what the shared tests of models cannot cover, because the Cpu has no streams, no separate memory
// and no rounding of operands.
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "model/definitions.hpp"
#include "moe_mamba/cuda.hpp"
#include "moe_mamba/reference.hpp"
#include "support/catch.hpp"
#include "support/rounding.hpp"

using namespace moe_mamba;
using test::Bench;
using DeviceMemory = cuda::Memory;

namespace {

/// Device memory between guard bytes.
template <class T>
class Guarded {
 public:
  explicit Guarded(const std::vector<T>& values) : size_(values.size()), memory_(2 * guard + size_ * sizeof(T)) {
    std::vector<unsigned char> bytes(memory_.size(), mark);
    if (size_ > 0) std::memcpy(bytes.data() + guard, values.data(), size_ * sizeof(T));
    DeviceMemory::write(memory_.data(), bytes.data(), bytes.size());
  }
  DeviceSpan<T> span() const { return {reinterpret_cast<T*>(memory_.data() + guard), size_}; }

  std::vector<T> read() const {
    std::vector<unsigned char> bytes(memory_.size());
    DeviceMemory::read(bytes.data(), memory_.data(), bytes.size());
    bool intact = true;
    for (std::size_t i = 0; i < guard; ++i) intact = intact && bytes[i] == mark && bytes[bytes.size() - 1 - i] == mark;
    CHECK(intact);
    std::vector<T> values(size_);
    if (size_ > 0) std::memcpy(static_cast<void*>(values.data()), bytes.data() + guard, size_ * sizeof(T));
    return values;
  }

 private:
  static constexpr std::size_t guard = 512;
  static constexpr unsigned char mark = 0x5a;
  std::size_t size_;
  DeviceMemory memory_;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// A batch in device memory, with everything that a gradient changes between guards.
template <class Definition, class S>
struct Scene {
  using C = compute_t<S>;
  using Input = InputOf<Definition, S>;
  using DeviceStates = States<Definition, S, DeviceMemory>;

  Scene(Shape shape_, std::uint64_t seed = 1)
      : shape(shape_),
        data(test::data<Definition, C>(shape, seed)),
        parameters(test::converted<S>(test::parameters<Definition>())),
        inputs(data.inputs),
        targets(data.targets),
        gradients(std::vector<C>(static_cast<std::size_t>(Definition::parameters))),
        outputs(test::poison<C>(shape.tokens() * Definition::output_width)),
        state_numbers(test::numbers(test::random_states<Definition, S>(shape.batch))),
        states(state_numbers.span(), shape.batch),
        model(parameters.span()) {}

  Shape shape;
  test::Data<Definition, C> data;
  Guarded<S> parameters;
  Guarded<Input> inputs, targets;
  Guarded<C> gradients, outputs, state_numbers;
  DeviceStates states;
  Model<Definition, S, Cuda> model;
};

/// Everything that the work on a scene changed.
template <class Definition, class S>
std::vector<std::vector<compute_t<S>>> results(const Scene<Definition, S>& scene) {
  (void)scene.parameters.read();
  (void)scene.inputs.read();
  (void)scene.targets.read();
  return {scene.gradients.read(), scene.outputs.read(), scene.state_numbers.read()};
}

template <class Definition, class S>
void work(Scene<Definition, S>& scene, Workspace<Definition, S, Cuda>& workspace) {
  scene.model.forward(workspace, scene.inputs.span(), scene.shape, scene.outputs.span());
  scene.model.gradient(workspace, scene.inputs.span(), scene.targets.span(), scene.shape, scene.gradients.span(),
                       &scene.states);
}

}  // namespace

TEMPLATE_TEST_CASE("Queued calls give the results of waiting calls, reproducibly, and as a graph", "[gpu]", float,
                   double, bfloat16) {
  using Net = test::ManyWaysNet;
  const Shape shape{3, 70};
  cuda::Device device;
  Workspace<Net, TestType, Cuda> workspace(device, shape, Purpose::training);

  Scene<Net, TestType> queued(shape);
  work(queued, workspace);
  device.synchronize();
  const auto expected = results(queued);
  const Losses losses = workspace.losses();

  Bench<Net, TestType, Cuda> bench(device, shape, test::parameters<Net>());
  auto states = test::random_states<Net, TestType>(shape.batch);
  CHECK(same_bits(bench.forward(queued.data.inputs, shape), expected[1]));
  std::vector<compute_t<TestType>> gradients(expected[0].size());
  const Losses waited = bench.gradient(queued.data, gradients, &states);
  CHECK(same_bits(gradients, expected[0]));
  CHECK(same_bits(test::numbers(states), expected[2]));
  CHECK(waited.prediction == losses.prediction);
  CHECK(waited.auxiliary == losses.auxiliary);
  CHECK(waited.targets == shape.tokens());

  // While a stream is captured in the strictest mode no call may allocate or wait, or the capture fails.
  Scene<Net, TestType> captured(shape);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  work(captured, workspace);
  cuda::check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  cuda::check(cudaGraphLaunch(executable, device.stream()), "cudaGraphLaunch");
  device.synchronize();
  const auto replayed = results(captured);
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(same_bits(replayed[i], expected[i]));
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEST_CASE("Decoding steps can be captured by the caller", "[gpu]") {
  using Net = test::MixtureNet;
  cuda::Device device;
  Workspace<Net, float, Cuda> workspace(device, {4, 1});
  const Model<Net, float, Cuda> model(Seed{1});
  States<Net, float, DeviceMemory> states(4), other(4);
  const std::vector<Token> tokens{1, 5, 7, 12};
  Guarded<Token> inputs(tokens);
  Guarded<float> outputs(test::poison<float>(4 * Net::output_width));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  model.step(workspace, states, inputs.span(), outputs.span());
  cuda::check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  for (int step = 0; step < 5; ++step) {
    cuda::check(cudaGraphLaunch(executable, device.stream()), "cudaGraphLaunch");
    device.synchronize();
    std::vector<float> expected(static_cast<std::size_t>(4 * Net::output_width));
    model.step(workspace, other, tokens, expected);
    CHECK(same_bits(outputs.read(), expected));
    CHECK(same_bits(test::numbers(states), test::numbers(other)));
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

TEMPLATE_TEST_CASE("With bfloat16 parameters a device's error is comparable to that of rounded operands", "[gpu]",
                   test::MambaNet, test::MixtureNet, test::ManyWaysNet, test::CapacityNet, test::SeriesNet) {
  // In double, with the same parameters: exact, and with the operands of products rounded as for tensor cores.
  using S = bfloat16;
  const Shape shape{2, 35};
  reference::Device exact_device;
  test::rounding::Device rounding_device;
  cuda::Device device;
  const auto values = test::parameters<TestType>();
  const auto data = test::data<TestType, float>(shape);
  Bench<TestType, S, reference::Device> exact(exact_device, shape, values);
  Bench<TestType, S, test::rounding::Device> rounded(rounding_device, shape, values);
  Bench<TestType, S, Cuda> actual(device, shape, values);
  const auto check = [](const char* what, const std::vector<float>& a, const std::vector<float>& r,
                        const std::vector<float>& e) {
    const double error = test::relative_error(a, e), allowed = 2 * test::relative_error(r, e);
    INFO(what << ": error " << error << ", allowed " << allowed);
    CHECK(error <= allowed);
    CHECK(allowed < 0.2);  // no router chose otherwise
  };
  auto exact_states = test::random_states<TestType, S>(shape.batch), rounded_states = exact_states,
       actual_states = exact_states;
  check("outputs", actual.forward(data.inputs, shape, &actual_states),
        rounded.forward(data.inputs, shape, &rounded_states), exact.forward(data.inputs, shape, &exact_states));
  check("states", test::numbers(actual_states), test::numbers(rounded_states), test::numbers(exact_states));
  check("gradients", actual.gradient(data), rounded.gradient(data), exact.gradient(data));
}

TEST_CASE("Training on a device gives the same bits from run to run, recorded or not", "[gpu][train]") {
  using Net = test::TrainedNet;
  std::vector<Token> tokens;
  Random random(Seed{3});
  for (int i = 0; i < 400; ++i) tokens.push_back(static_cast<Token>(random.below(11)));
  const std::span<const Token> text(tokens);
  const auto train = [&](bool recorded) {
    Model<Net, bfloat16, Cuda> model(Seed{1});
    Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Constant{}, TrainerOptions{.largest = {4, 20}});
    std::vector<double> losses;
    for (std::size_t step = 0; step < 6; ++step) {
      const auto inputs = text.subspan(40 * step, 60), targets = text.subspan(40 * step + 1, 60);
      losses.push_back(trainer.step(TokenBatch{inputs, targets, {3, 20}}).loss);
      // A batch of another shape in between ends the recording.
      if (!recorded) trainer.evaluate(TokenBatch{text.first(9), text.subspan(1, 9), {1, 9}});
      if (!recorded) {
        trainer.accumulate(TokenBatch{text.first(8), text.subspan(1, 8), {2, 4}});
        trainer.discard();
      }
    }
    return std::make_pair(losses, test::numbers(model));
  };
  const auto first = train(true), again = train(true), unrecorded = train(false);
  CHECK(first.first == again.first);
  CHECK(same_bits(first.second, again.second));
  CHECK(first.first == unrecorded.first);
  CHECK(same_bits(first.second, unrecorded.second));
  CHECK(first.first.back() < first.first.front());
}

TEST_CASE("Training on packed batches gives the same bits, recorded or not", "[gpu][train]") {
  using Net = test::TrainedNet;
  std::vector<Token> tokens;
  Random random(Seed{4});
  for (int i = 0; i < 400; ++i) tokens.push_back(static_cast<Token>(random.below(11)));
  const std::span<const Token> text(tokens);
  // Equally many tokens and sequences with different lengths are a different batch.
  const std::vector<Index> some{5, 1, 0, 33, 2, 19}, others{1, 5, 0, 33, 19, 2};
  const auto train = [&](bool recorded) {
    Model<Net, bfloat16, Cuda> model(Seed{1});
    Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Constant{});
    std::vector<double> losses;
    for (std::size_t step = 0; step < 9; ++step) {
      const auto inputs = text.subspan(30 * step, 60), targets = text.subspan(30 * step + 1, 60);
      const std::vector<Index> lengths = step == 4 ? others : some;  // elsewhere in memory each time
      losses.push_back(trainer.step(TokenBatch{inputs, targets, Shape::packed(lengths)}).loss);
      if (!recorded) {
        trainer.accumulate(TokenBatch{text.first(8), text.subspan(1, 8), {2, 4}});
        trainer.discard();
      }
    }
    return std::make_pair(losses, test::numbers(model));
  };
  const auto recorded = train(true), unrecorded = train(false);
  CHECK(recorded.first == unrecorded.first);
  CHECK(same_bits(recorded.second, unrecorded.second));
}

TEST_CASE("Many models on separate streams do not interfere", "[gpu]") {
  using Net = test::MixtureNet;
  const Shape shape{2, 50};
  const Model<Net, float, Cuda> model(Seed{1});
  const auto run = [&](std::uint64_t seed) {
    cuda::Device device;
    Workspace<Net, float, Cuda> workspace(device, shape, Purpose::training);
    const auto data = test::data<Net, float>(shape, seed);
    Array<float, DeviceMemory> gradients(static_cast<std::size_t>(Net::parameters));
    std::vector<float> outputs(static_cast<std::size_t>(shape.tokens() * Net::output_width)), sums(gradients.size());
    for (int time = 0; time < 5; ++time) {
      model.forward(workspace, data.inputs, shape, outputs);
      model.gradient(workspace, data.inputs, data.targets, shape, gradients);
    }
    gradients.read(sums);
    outputs.insert(outputs.end(), sums.begin(), sums.end());
    return outputs;
  };
  std::array<std::vector<float>, 4> alone, together;
  for (std::size_t i = 0; i < alone.size(); ++i) alone[i] = run(i);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < together.size(); ++i) threads.emplace_back([&, i] { together[i] = run(i); });
  for (auto& thread : threads) thread.join();
  for (std::size_t i = 0; i < alone.size(); ++i) CHECK(same_bits(alone[i], together[i]));
}

TEST_CASE("A device works on the caller's stream", "[gpu]") {
  using Net = test::MixtureNet;
  cudaStream_t stream = nullptr;
  cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  {
    Model<Net, float, Cuda> model(Seed{1}), twin(Seed{1});
    Cuda device({.stream = stream});
    Trainer trainer(model, device, AdamW{}, Constant{}), other(twin);
    CHECK(trainer.device().stream() == stream);
    const auto data = test::data<Net, float>({2, 9});
    const TokenBatch batch{data.inputs, data.targets, data.shape};
    for (int step = 0; step < 3; ++step) CHECK(trainer.step(batch).loss == other.step(batch).loss);
    CHECK(same_bits(test::numbers(model), test::numbers(twin)));
  }
  cuda::check(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

TEST_CASE("Requests that a device cannot meet are reported", "[gpu]") {
  using Net = test::MixtureNet;
  cuda::Device device;
  using test::Contains;
  CHECK_THROWS_WITH((Workspace<Net, float, Cuda>(device, {Index{1} << 20, Index{1} << 15})),
                    Contains("cudaMalloc") && Contains("a smaller batch or model"));
  // The failed call leaves no error behind.
  Workspace<Net, float, Cuda> workspace(device, {2, 3});
  const Model<Net, float, Cuda> model(Seed{1});
  std::vector<float> outputs(static_cast<std::size_t>(6 * Net::output_width));
  CHECK_THROWS_AS(model.forward(workspace, std::vector<Token>{1, 2, 3, 4, 5, 13}, {2, 3}, outputs), std::out_of_range);
  CHECK_THROWS_WITH(model.forward(workspace, DeviceSpan<const Token>(nullptr, 5), {2, 3}, DeviceSpan<float>()),
                    Contains("inputs.size() is 5"));
  CHECK_NOTHROW(model.forward(workspace, std::vector<Token>{1, 2, 3, 4, 5, 6}, {2, 3}, outputs));
}
