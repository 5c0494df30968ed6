#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "moe_mamba/families/pretrained.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

/// Models that public code has computed: tests/fixtures, where README.md and models.py say how.
namespace test {

using namespace moe_mamba;

inline std::filesystem::path fixture_folder(const std::string& name) {
  return std::filesystem::path(__FILE__).parent_path().parent_path() / "fixtures" / name;
}

/// What the public code gave for a model.
class Reference {
 public:
  explicit Reference(const std::string& name)
      : name_(name), file_(fixture_folder(name) / "reference.safetensors"), checkpoint_(fixture_folder(name)) {
    const auto& shape = file_.at("inputs").shape;
    shape_ = {shape[0], shape[1]};
  }

  Shape shape() const { return shape_; }
  std::vector<Token> tokens(const char* which) const {
    const TensorEntry& entry = file_.at(which);
    std::vector<Token> values(static_cast<std::size_t>(shape_.tokens()));
    REQUIRE((entry.type == DataType::I32 && entry.data.size() == values.size() * sizeof(Token)));
    std::memcpy(values.data(), entry.data.data(), entry.data.size());
    return values;
  }
  std::vector<double> numbers(const std::string& name) const {
    const TensorEntry& entry = file_.at(name);
    std::vector<double> values(static_cast<std::size_t>(elements(entry)));
    copy_converted(entry, values.data());
    return values;
  }

  /// Final states in the order of ours: of each Mamba layer the last K - 1 inputs, (K - 1, E), then (N, E).
  std::vector<double> states() const {
    std::vector<double> result;
    for (Index sequence = 0; sequence < shape_.batch; ++sequence) {
      for (Index layer = 0; layer < 64; ++layer) {
        const std::string number = std::to_string(layer);
        if (file_.find("ssm_state." + number) == nullptr) continue;
        append_transposed(result, "conv_state." + number, sequence, 1);
        append_transposed(result, "ssm_state." + number, sequence, 0);
      }
    }
    return result;
  }

  /// What a result in S may be off by: twice what the public code is off by in that precision.
  template <class S>
  double bound(const std::string& tensor) const {
    const char* precision = std::is_same_v<S, bfloat16> ? "error.bfloat16."
                            : std::is_same_v<S, float>  ? "error.float32."
                                                        : "error.float64.";
    return 2 * numbers(precision + tensor).front();
  }

  const families::CheckpointFolder& checkpoint() const { return checkpoint_; }
  const std::string& name() const { return name_; }

 private:
  /// A (B, E, K) tensor's columns from `first` on, as (K - first, E) of one sequence.
  void append_transposed(std::vector<double>& to, const std::string& tensor, Index sequence, Index first) const {
    const auto values = numbers(tensor);
    const Index channels = file_.at(tensor).shape[1], columns = file_.at(tensor).shape[2];
    for (Index k = first; k < columns; ++k) {
      for (Index e = 0; e < channels; ++e) {
        to.push_back(values[static_cast<std::size_t>((sequence * channels + e) * columns + k)]);
      }
    }
  }

  std::string name_;
  SafetensorsFile file_;
  families::CheckpointFolder checkpoint_;
  Shape shape_;
};

/// Logits and final states of a model that is opened from the fixture's folder; in float and double loss and every
/// gradient as well.
template <class Definition, class S>
void check_fixture(const Reference& reference) {
  using C = compute_t<S>;
  const Shape shape = reference.shape();
  INFO(reference.name() << ", " << sizeof(S) << " bytes a parameter");
  const auto model = load<Definition, S>(Pretrained{fixture_folder(reference.name())});
  const auto inputs = reference.tokens("inputs"), targets = reference.tokens("targets");
  Cpu device(Threads{2});
  Workspace<Definition, S> workspace(device, shape, Purpose::training);
  States<Definition, S> states(shape.batch);
  auto logits = poison<C>(shape.tokens() * Definition::vocabulary);
  model.forward(workspace, inputs, shape, logits, &states);
  CHECK(relative_error(logits, reference.numbers("logits")) <= reference.bound<S>("logits"));
  if constexpr (!std::is_same_v<S, bfloat16>) {
    double state_bound = 0;
    for (Index layer = 0; layer < Definition::Body::layers; ++layer) {
      const std::string number = std::to_string(layer);
      try {
        for (const char* kind : {"conv_state.", "ssm_state."}) {
          state_bound = std::max(state_bound, reference.bound<S>(kind + number));
        }
      } catch (const std::runtime_error&) {  // a layer without states
      }
    }
    const std::vector<C> found(states.values().begin(), states.values().end());
    CHECK(relative_error(found, reference.states()) <= state_bound);

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
