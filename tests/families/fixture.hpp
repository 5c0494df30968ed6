#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "families/passes.hpp"
#include "moe_mamba/families/pretrained.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"
#include "support/reference_file.hpp"

/// Models computed by public code: see README.md and models.py in tests/fixtures.
namespace test {

using namespace moe_mamba;

/// The public code's results for a model.
class Reference : public ReferenceFile {
 public:
  explicit Reference(const std::string& name)
      : ReferenceFile(fixture_folder(name) / "reference.safetensors"),
        name_(name),
        checkpoint_(fixture_folder(name)),
        shape_(ReferenceFile::shape("inputs")) {}

  Shape shape() const { return shape_; }

  /// A part of a sequence's final state, in our layout, and the reference's tensor that it comes from; exact if none.
  struct StatePart {
    std::string tensor;
    std::vector<double> values;
  };

  /// The final state of a sequence in the order of ours: of each Mamba layer the last K - 1 inputs, (K - 1, E), then
  /// (N, E); of attention over N positions its cache, (G, N, d) of keys, as many of values, and the position.
  std::vector<StatePart> states(Index sequence, Index context) const {
    std::vector<StatePart> parts;
    for (Index layer = 0; layer < 64; ++layer) {
      const std::string number = "_state." + std::to_string(layer);
      if (file().find("ssm" + number) != nullptr) {
        for (const char* kind : {"conv", "ssm"}) {
          parts.push_back({kind + number, transposed(kind + number, sequence, std::string(kind) == "conv" ? 1 : 0)});
        }
      }
      if (file().find("key" + number) == nullptr) continue;
      for (const char* kind : {"key", "value"})
        parts.push_back({kind + number, cache(kind + number, sequence, context)});
      parts.push_back({"", {static_cast<double>(shape_.length), 0}});
    }
    return parts;
  }

  const families::CheckpointFolder& checkpoint() const { return checkpoint_; }
  const std::string& name() const { return name_; }

 private:
  /// A (B, E, K) tensor's columns from `first` on, as (K - first, E) of one sequence.
  std::vector<double> transposed(const std::string& tensor, Index sequence, Index first) const {
    std::vector<double> result;
    const auto values = numbers(tensor);
    const Index channels = file().at(tensor).shape[1], columns = file().at(tensor).shape[2];
    for (Index k = first; k < columns; ++k) {
      for (Index e = 0; e < channels; ++e) {
        result.push_back(values[static_cast<std::size_t>((sequence * channels + e) * columns + k)]);
      }
    }
    return result;
  }
  /// The last of (B, G, L, d) rows in the layout of a cache of `context`: position p in slot p mod context.
  std::vector<double> cache(const std::string& tensor, Index sequence, Index context) const {
    const auto values = numbers(tensor);
    const Index heads = file().at(tensor).shape[1], length = file().at(tensor).shape[2], d = file().at(tensor).shape[3];
    std::vector<double> result(static_cast<std::size_t>(heads * context * d));
    for (Index head = 0; head < heads; ++head) {
      for (Index p = std::max<Index>(0, length - context); p < length; ++p) {
        for (Index i = 0; i < d; ++i) {
          result[static_cast<std::size_t>((head * context + p % context) * d + i)] =
              values[static_cast<std::size_t>(((sequence * heads + head) * length + p) * d + i)];
        }
      }
    }
    return result;
  }

  std::string name_;
  families::CheckpointFolder checkpoint_;
  Shape shape_;
};

/// Checks the final states of all sequences, each tensor of the reference within its own bound.
template <class Definition, class S>
void check_states(const Reference& reference, const States<Definition, S>& states) {
  Index context = 1;
  for (const families::LayerSpec& layer : families::architecture_of(families::Of<Definition>{}).layers) {
    if (layer.find("Context") != nullptr) context = layer["Context"];
  }
  std::map<std::string, std::vector<double>> found, expected;
  auto at = states.values().begin();
  for (Index sequence = 0; sequence < reference.shape().batch; ++sequence) {
    for (const Reference::StatePart& part : reference.states(sequence, context)) {
      expected[part.tensor].insert(expected[part.tensor].end(), part.values.begin(), part.values.end());
      for (std::size_t i = 0; i < part.values.size(); ++i) found[part.tensor].push_back(static_cast<double>(*at++));
    }
  }
  CHECK((at == states.values().end()));
  for (const auto& [tensor, values] : expected) {
    INFO(tensor);
    CHECK(relative_error(found[tensor], values) <= (tensor.empty() ? 0 : reference.bound<S>(tensor)));
  }
}

/// Checks logits and final states of a model opened from the fixture's folder, on whole sequences and step by step, and
/// in float and double also the loss and every gradient.
template <class Definition, class S>
void check_fixture(const Reference& reference) {
  using C = compute_t<S>;
  const Shape shape = reference.shape();
  INFO(reference.name() << ", " << sizeof(S) << " bytes a parameter");
  const auto model = load<Definition, S>(Pretrained{fixture_folder(reference.name())});
  const auto inputs = reference.tokens("inputs"), targets = reference.tokens("targets");
  Cpu device(Threads{2});
  Workspace<Definition, S> workspace(device, shape, Purpose::training);
  States<Definition, S> states(shape.batch), stepped(shape.batch);
  auto logits = poison<C>(shape.tokens() * Definition::vocabulary);
  model.forward(workspace, inputs, shape, logits, &states);
  CHECK(relative_error(logits, reference.numbers("logits")) <= reference.bound<S>("logits"));

  constexpr auto V = static_cast<std::size_t>(Definition::vocabulary);
  auto step_logits = poison<C>(shape.batch * Definition::vocabulary);
  for (Index t = 0; t < shape.length; ++t) {
    std::vector<Token> tokens;
    for (Index b = 0; b < shape.batch; ++b) tokens.push_back(inputs[static_cast<std::size_t>(b * shape.length + t)]);
    model.step(workspace, stepped, tokens, step_logits);
    for (Index b = 0; b < shape.batch; ++b) {
      std::copy_n(step_logits.begin() + b * Definition::vocabulary, V,
                  logits.begin() + (b * shape.length + t) * Definition::vocabulary);
    }
  }
  CHECK(relative_error(logits, reference.numbers("logits")) <= reference.bound<S>("logits"));
  if constexpr (!std::is_same_v<S, bfloat16>) {
    check_states<Definition, S>(reference, states);
    check_states<Definition, S>(reference, stepped);

    std::vector<C> gradients(static_cast<std::size_t>(Definition::parameters));
    const Losses losses = model.gradient(workspace, inputs, targets, shape, gradients);
    const double loss = reference.numbers("loss").front();
    CHECK(std::abs(losses.prediction - loss) <= reference.bound<S>("loss") * loss);
    CHECK(losses.auxiliary == 0);
    Definition::visit_parameters([&](const Parameter& parameter) {
      for (const auto& part : reference.checkpoint().family().parts(parameter)) {
        INFO(part.name);
        const auto first = gradients.begin() + parameter.offset + part.offset;
        const std::string tensor = "gradient." + part.name;
        CHECK(relative_error(std::vector<C>(first, first + part.count()), reference.numbers(tensor)) <=
              reference.bound<S>(tensor));
      }
    });
  }
}

/// All precisions.
template <class Definition>
void check_fixture(const char* name) {
  const Reference reference(name);
  check_fixture<Definition, double>(reference);
  check_fixture<Definition, float>(reference);
  check_fixture<Definition, bfloat16>(reference);
}

}  // namespace test
