// Invalid arguments of models, workspaces and states: named in the message, without side effects.
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "model/definitions.hpp"
#include "support/catch.hpp"

using namespace moe_mamba;
using test::Bench;

namespace {

using Net = test::MixtureNet;
using Series = test::SeriesNet;

/// Checks that `call` throws an E whose message contains every word.
template <class E, class Call>
void check_throws(const Call& call, const std::vector<std::string>& words) {
  std::string message = "nothing was thrown";
  try {
    call();
  } catch (const E& error) {
    message = error.what();
  }
  for (const std::string& word : words) {
    INFO('"' << message << "\" has \"" << word << '"');
    CHECK(message.find(word) != std::string::npos);
  }
}

template <class Call>
void check_invalid(const Call& call, const std::vector<std::string>& words) {
  check_throws<std::invalid_argument>(call, words);
}

/// A model with everything that a call could write to, and a copy of everything.
template <class Definition>
struct Scene {
  explicit Scene(Purpose purpose = Purpose::training)
      : bench(device, {2, 4}, test::parameters<Definition>(), purpose),
        states(test::random_states<Definition, double>(2)),
        dstates(test::random_states<Definition, double>(2, 2)),
        gradients(static_cast<std::size_t>(Definition::parameters), 3),
        outputs(static_cast<std::size_t>(6 * Definition::output_width), 4),
        dinputs(static_cast<std::size_t>(6 * Definition::input_width), 5) {
    keep();
  }

  void keep() { kept_ = bytes(); }
  void check_untouched() const { CHECK((bytes() == kept_)); }

  Cpu device;
  Bench<Definition> bench;
  test::Data<Definition, double> data = test::data<Definition, double>({2, 3});
  States<Definition, double> states, dstates;
  std::vector<double> gradients, outputs, dinputs;

 private:
  std::vector<double> bytes() const {
    std::vector<double> all;
    const auto append = [&](const auto& values) { all.insert(all.end(), values.begin(), values.end()); };
    append(bench.model.parameters());
    append(states.values());
    append(dstates.values());
    append(gradients);
    append(outputs);
    append(dinputs);
    return all;
  }
  std::vector<double> kept_;
};

}  // namespace

TEST_CASE("A workspace names the sizes that it supports", "[model][errors]") {
  Cpu device;
  const auto make = [&](Shape shape) { return [&device, shape] { Workspace<Net>(device, shape); }; };
  check_invalid(make({0, 1}), {"largest.batch is 0", "1 or more"});
  check_invalid(make({-3, 1}), {"largest.batch is -3", "1 or more"});
  check_invalid(make({1, 0}), {"largest.length is 0", "1 or more"});
  check_invalid(make({1, -1}), {"largest.length is -1", "1 or more"});
  check_invalid(make({Index{1} << 40, Index{1} << 40}), {"largest.tokens()", "2^40"});
  check_invalid(make({2, std::numeric_limits<Index>::max()}), {"largest.tokens()", "2^40"});
}

TEST_CASE("States name the supported counts", "[model][errors]") {
  using StatesType = States<Net, double>;
  constexpr Index size = StatesType::state_size;
  const std::string allowed = "0 to " + std::to_string((Index{1} << 48) / size);
  check_invalid([] { StatesType(std::numeric_limits<Index>::min()); }, {"count is -", allowed});
  check_invalid([] { StatesType(-1); }, {"count is -1", allowed});
  check_invalid([] { StatesType(Index{1} << 61); }, {"count is 2305843009213693952", allowed});
  check_invalid([] { StatesType(std::span<double>(), Index{1} << 62); }, {"count is", allowed});
  std::vector<double> memory(static_cast<std::size_t>(2 * size), 1);
  check_invalid([&] { StatesType(memory, 3); },
                {"memory.size() is " + std::to_string(2 * size), std::to_string(3 * size)});
  check_invalid([&] { StatesType(memory, 0); }, {"memory.size() is " + std::to_string(2 * size), "0, the count"});

  StatesType states(memory, 2);
  const StatesType other(3);
  check_invalid([&] { states = other; }, {"count() is 3", "2"});
  check_throws<std::out_of_range>([&] { (void)states.sequence(2); }, {"index is 2", "0 to 1"});
  check_throws<std::out_of_range>([&] { (void)states.sequence(-1); }, {"index is -1", "0 to 1"});
  check_throws<std::out_of_range>([&] { states.reset(2); }, {"index is 2", "0 to 1"});
  CHECK(memory == std::vector<double>(memory.size(), 1));
}

TEST_CASE("A model names the number of parameters to borrow and the names that it has", "[model][errors]") {
  std::vector<float> memory(static_cast<std::size_t>(Net::parameters + 1));
  const std::string count = std::to_string(Net::parameters);
  check_invalid([&] { Model<Net>{std::span<float>(memory)}; },
                {"parameters.size() is " + std::to_string(Net::parameters + 1), count});
  check_invalid([&] { Model<Net>{std::span<float>()}; }, {"parameters.size() is 0", count});
  Model<Net> model{std::span<float>(memory).first(memory.size() - 1)};
  check_invalid([&] { (void)model.parameter("layers.0.mixer.in_proj"); },
                {"name is layers.0.mixer.in_proj", "parameter_list", "such as layers.0.mixer.in_proj.weight"});
  check_invalid([&] { (void)model.parameter("norm_f.gain"); }, {"such as norm_f.weight"});
  check_invalid([&] { (void)model.parameter(""); }, {"such as embedding.weight"});
}

TEST_CASE("Bad inputs, shapes and outputs are named, and change nothing", "[model][errors]") {
  Scene<Net> scene;
  auto& bench = scene.bench;
  auto& data = scene.data;
  auto& states = scene.states;
  auto& outputs = scene.outputs;
  const Shape shape{2, 3};
  const std::span<const Token> inputs = data.inputs;
  const std::span<double> out = outputs;
  const auto forward = [&](std::span<const Token> tokens, Shape call_shape, std::span<double> values,
                           States<Net, double>* call_states = nullptr) {
    bench.model.forward(bench.workspace, tokens, call_shape, values, call_states);
  };

  check_invalid([&] { forward(inputs, {-1, 3}, out); }, {"shape.batch is -1", "0 to 2"});
  check_invalid([&] { forward(inputs, {3, 2}, out); }, {"shape.batch is 3", "0 to 2"});
  check_invalid([&] { forward(inputs, {1, 5}, out); }, {"shape.length is 5", "0 to 4"});
  check_invalid([&] { forward(inputs, {1, -1}, out); }, {"shape.length is -1", "0 to 4"});
  check_invalid([&] { forward(inputs.first(5), shape, out, &states); }, {"inputs.size() is 5", "6"});
  check_invalid([&] { forward(inputs, {2, 2}, out, &states); }, {"inputs.size() is 6", "4"});
  check_invalid([&] { forward(inputs, shape, out.first(out.size() - 1), &states); }, {"outputs.size() is 77", "78"});
  States<Net, double> three(3);
  check_invalid([&] { forward(inputs, shape, out, &three); }, {"states.count() is 3", "2"});

  for (const Token bad : {Token{13}, Token{-1}, std::numeric_limits<Token>::max(), std::numeric_limits<Token>::min()}) {
    auto tokens = data.inputs;
    tokens[4] = bad;
    const std::vector<std::string> words{"inputs[4] is " + std::to_string(bad), "0 to 12"};
    check_throws<std::out_of_range>([&] { forward(tokens, shape, out, &states); }, words);
    check_throws<std::out_of_range>(
        [&] { bench.model.forward_last(bench.workspace, tokens, shape, out.first(26), &states); }, words);
  }

  check_invalid(
      [&] {
        bench.model.forward_last(bench.workspace, {}, {2, 0}, out.first(26), &states);
      },
      {"shape.length is 0", "1 or more"});
  check_invalid([&] { bench.model.forward_last(bench.workspace, inputs, shape, out, &states); },
                {"outputs.size() is 78", "26"});
  check_invalid([&] { bench.model.step(bench.workspace, three, inputs.first(3), out.first(39)); },
                {"states.count() is 3", "0 to 2"});
  check_invalid([&] { bench.model.step(bench.workspace, states, inputs.first(1), out.first(26)); },
                {"inputs.size() is 1", "2, 1 for each of the 2 states"});
  check_throws<std::out_of_range>(
      [&] {
        const std::vector<Token> tokens{1, 13};
        bench.model.step(bench.workspace, states, tokens, out.first(26));
      },
      {"inputs[1] is 13", "0 to 12"});
  scene.check_untouched();
}

TEST_CASE("Bad targets and gradients are named, and change nothing", "[model][errors]") {
  Scene<Net> scene, inference(Purpose::inference);
  auto& data = scene.data;
  const auto gradient = [](Scene<Net>& at, const test::Data<Net, double>& batch) {
    (void)at.bench.gradient(batch, at.gradients, &at.states, &at.dstates);
  };

  auto bad = data;
  bad.targets.pop_back();
  check_invalid([&] { gradient(scene, bad); }, {"targets.size() is 5", "6"});
  check_invalid([&] { (void)scene.bench.loss(bad, &scene.states); }, {"targets.size() is 5", "6"});
  for (const Token target : {Token{13}, Token{-2}}) {
    bad = data;
    bad.targets[2] = target;
    const std::vector<std::string> words{"targets[2] is " + std::to_string(target), "-1 to 12"};
    check_throws<std::out_of_range>([&] { gradient(scene, bad); }, words);
    check_throws<std::out_of_range>([&] { (void)scene.bench.loss(bad, &scene.states); }, words);
  }
  bad = data;
  bad.inputs[0] = -1;
  check_throws<std::out_of_range>([&] { gradient(scene, bad); }, {"inputs[0] is -1", "0 to 12"});
  bad = data;
  bad.shape = {2, 5};
  check_invalid([&] { gradient(scene, bad); }, {"shape.length is 5", "0 to 4"});

  check_invalid([&] { gradient(inference, data); }, {"workspace.purpose() is inference", "training"});
  std::vector<double> few(static_cast<std::size_t>(Net::parameters - 1));
  check_invalid([&] { (void)scene.bench.gradient(data, few); },
                {"gradients.size() is " + std::to_string(Net::parameters - 1), std::to_string(Net::parameters)});
  States<Net, double> three(3);
  check_invalid([&] { (void)scene.bench.gradient(data, scene.gradients, &three); }, {"states.count() is 3", "2"});
  check_invalid([&] { (void)scene.bench.gradient(data, scene.gradients, &scene.states, &three); },
                {"dstates.count() is 3", "2"});
  scene.check_untouched();
  inference.check_untouched();
}

TEST_CASE("backward() needs a recorded forward pass, once, and a failed call keeps the record", "[model][errors]") {
  Scene<Net> scene;
  auto& bench = scene.bench;
  const std::vector<double> doutputs(scene.outputs.size(), 0.1);
  const auto backward = [&] { bench.model.backward(bench.workspace, doutputs, scene.gradients); };
  const std::vector<std::string> none{"backward() needs a recorded forward pass", "call forward()"};
  check_invalid(backward, none);
  (void)bench.forward(scene.data.inputs, {2, 3});
  backward();
  const auto once = scene.gradients;
  check_invalid(backward, none);
  CHECK(scene.gradients == once);

  // loss(), gradient() and forward_last() leave no record.
  (void)bench.loss(scene.data);
  check_invalid(backward, none);
  (void)bench.gradient(scene.data);
  check_invalid(backward, none);
  bench.model.forward_last(bench.workspace, scene.data.inputs, {2, 3}, std::span(scene.outputs).first(26));
  check_invalid(backward, none);

  (void)bench.forward(scene.data.inputs, {2, 3});
  scene.keep();
  check_invalid([&] { bench.model.backward(bench.workspace, std::span(doutputs).first(13), scene.gradients); },
                {"outputs.size() is 13", "78"});
  check_invalid([&] { bench.model.backward(bench.workspace, doutputs, std::span(scene.gradients).first(7)); },
                {"gradients.size() is 7", std::to_string(Net::parameters)});
  check_invalid([&] { bench.model.backward(bench.workspace, doutputs, scene.gradients, scene.dinputs); },
                {"dinputs is given", "none"});
  States<Net, double> one(1);
  check_invalid([&] { bench.model.backward(bench.workspace, doutputs, scene.gradients, {}, &one); },
                {"dstates.count() is 1", "2"});
  // Nor does a forward pass that was refused.
  check_throws<std::out_of_range>([&] { (void)bench.forward({1, 2, 13}, {1, 3}); }, {"inputs[2] is 13"});
  scene.check_untouched();
  scene.gradients.assign(scene.gradients.size(), 3);
  backward();
  CHECK(scene.gradients == once);

  Scene<Net> inference(Purpose::inference);
  (void)inference.bench.forward(scene.data.inputs, {2, 3});
  check_invalid([&] { inference.bench.model.backward(inference.bench.workspace, doutputs, inference.gradients); },
                {"workspace.purpose() is inference", "training"});
}

TEST_CASE("Models of series name their bad arguments, and change nothing", "[model][errors]") {
  Scene<Series> scene;
  auto& bench = scene.bench;
  const std::span<const double> inputs = scene.data.inputs, targets = scene.data.targets;
  const Shape shape{2, 3};
  check_invalid([&] { bench.model.forward(bench.workspace, inputs.first(17), shape, scene.outputs, &scene.states); },
                {"inputs.size() is 17", "18"});
  check_invalid([&] { (void)bench.model.loss(bench.workspace, inputs, targets.first(11), shape, &scene.states); },
                {"targets.size() is 11", "12"});
  check_invalid(
      [&] {
        (void)bench.model.gradient(bench.workspace, inputs, targets.first(11), shape, scene.gradients, &scene.states,
                                   &scene.dstates);
      },
      {"targets.size() is 11", "12"});
  scene.check_untouched();
  (void)bench.forward(scene.data.inputs, shape);
  check_invalid(
      [&] { bench.model.backward(bench.workspace, scene.outputs, scene.gradients, std::span(scene.dinputs).first(5)); },
      {"dinputs.size() is 5", "18"});
  scene.check_untouched();
}
