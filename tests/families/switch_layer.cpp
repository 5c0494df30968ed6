// The Moe layer against the layer of transformers' Switch Transformers: one expert per token, weighted by its
// probability, with limited capacity, the balance loss and the z-loss. tests/fixtures/switch_layer.py documents what
// was computed.
#include <string>
#include <vector>

#include "layers/harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/reference.hpp"
#include "support/reference_file.hpp"

using namespace moe_mamba;
using test::ReferenceFile;

namespace {

/// A tensor of the public layer and its offset in the parameters of this library.
struct Location {
  std::string tensor;
  Index offset;
};

template <class Layer>
std::vector<Location> locations() {
  std::vector<Location> all;
  for (const Parameter& parameter : layer_parameters<Layer>) {
    const std::string name(parameter.name.view());
    if (name.starts_with("router.")) {
      all.push_back({"router.classifier" + name.substr(name.rfind('.')), parameter.offset});
      continue;
    }
    for (Index e = 0; e < parameter.shape[0]; ++e) {
      const char* matrix = name == "experts.up.weight" ? ".wi.weight" : ".wo.weight";
      all.push_back({"experts.expert_" + std::to_string(e) + matrix,
                     parameter.offset + e * parameter.shape[1] * parameter.shape[2]});
    }
  }
  return all;
}

/// There, capacity is per sequence, so each sequence is a separate call here. The losses are means over sequences: half
/// of each, which is the harness's weight of auxiliary losses.
template <class Layer, class S, class Device>
void check_switch(Device& device, const ReferenceFile& reference, Index width) {
  using C = compute_t<S>;
  const Shape shape = reference.shape("hidden");
  REQUIRE(static_cast<double>(shape.batch) * test::auxiliary_weight == 1);
  std::vector<double> parameters(static_cast<std::size_t>(parameters_of<Layer>));
  for (const Location& location : locations<Layer>()) {
    const auto values = reference.numbers("weight." + location.tensor);
    std::copy(values.begin(), values.end(), parameters.begin() + location.offset);
  }
  const auto hidden = reference.numbers("hidden"), cotangent = reference.numbers("cotangent");
  const auto dropped = reference.numbers("dropped");
  std::vector<C> output, dhidden, gradients(parameters.size());
  double balance = 0, z = 0;
  for (Index sequence = 0; sequence < shape.batch; ++sequence) {
    const auto part = [&](const std::vector<double>& all) {
      const auto first = all.begin() + sequence * shape.length * width;
      return std::vector<C>(first, first + shape.length * width);
    };
    test::LayerRun<Layer, S, Device> layer(device, {1, shape.length}, width, parameters, {});
    const auto y = layer.forward(part(hidden));
    output.insert(output.end(), y.begin(), y.end());
    std::vector<C> dstates;
    const auto dx = layer.backward(part(cotangent), test::poison<C>(shape.length * width), dstates);
    dhidden.insert(dhidden.end(), dx.begin(), dx.end());
    for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] += layer.gradients[i];
    const typename Layer::Choice::template Statistics<const double> statistics(layer.report.data());
    balance += statistics.means().balance / static_cast<double>(shape.batch);
    z += statistics.means().square_log_sum_exp / static_cast<double>(shape.batch);
    CHECK(*statistics.dropped == dropped[static_cast<std::size_t>(sequence)]);
    CHECK(*statistics.dropped > 0);
  }
  const auto check = [&](const std::string& tensor, const auto& found) {
    INFO(tensor);
    CHECK(test::relative_error(found, reference.numbers(tensor)) <= reference.bound<S>(tensor));
  };
  check("output", output);
  check("balance_loss", std::vector<double>{balance});
  check("z_loss", std::vector<double>{z});
  check("gradient.hidden", dhidden);
  for (const Location& location : locations<Layer>()) {
    const auto count = static_cast<Index>(reference.numbers("weight." + location.tensor).size());
    const auto first = gradients.begin() + location.offset;
    check("gradient." + location.tensor, std::vector<C>(first, first + count));
  }
}

template <class Layer>
void check_switch(const char* name, Index width) {
  const ReferenceFile reference(test::fixture_folder("switch_layer") / (std::string(name) + ".safetensors"));
  Cpu cpu(Threads{2});
  reference::Device naive;
  check_switch<Layer, double>(cpu, reference, width);
  check_switch<Layer, double>(naive, reference, width);
  check_switch<Layer, float>(cpu, reference, width);
}

}  // namespace

TEST_CASE("A switch layer that drops tokens matches transformers, and its gradient", "[families][switch]") {
  check_switch<Moe<Experts<4>, Hidden<5>, Capacity<1>, BalanceLoss<1, 5>, ZLoss<1, 10>>::Layer<6>>("relu", 6);
}

TEST_CASE("A switch layer with a biased router and GELU matches transformers, and its gradient", "[families][switch]") {
  using Layer =
      Moe<Experts<3>, Hidden<7>, Gelu, RouterBias, Capacity<15, 16>, BalanceLoss<1, 5>, ZLoss<1, 10>>::Layer<5>;
  check_switch<Layer>("gelu", 5);
}
