#pragma once

#include <string>

#include "moe_mamba/families/architecture.hpp"

/// The layers of the definition language as data: each layer's options and defaults in one struct, which definitions
/// and config.json are both read into.
namespace moe_mamba::inline v0_2::families {

struct MambaSpec {
  Index width = 1, state = 16, convolution = 4;
  Index inner = 0;      // 0: the default
  Index step_rank = 0;  // 0: the default
  NormSpec inner_norm = {.kind = "NoNorm"};
  bool projection_bias = false, convolution_bias = true;

  LayerSpec layer() const {
    const Index default_rank = (width + 15) / 16;
    // The number is the inner width, however it is spelled.
    const Index wide = inner == 0 ? 2 * width : inner;
    OptionSpec inner_width = wide % width == 0 ? integer("Expand", wide / width, 2) : integer("Inner", wide, 0);
    inner_width.name = "Expand";
    inner_width.number = static_cast<double>(wide);
    return {"Mamba",
            {integer("State", state, 16), integer("Convolution", convolution, 4), inner_width,
             integer("StepRank", step_rank == 0 ? default_rank : step_rank, default_rank),
             OptionSpec{"InnerNorm",
                        inner_norm.kind == "NoNorm" ? "no InnerNorm" : "InnerNorm<" + inner_norm.spelling() + ">",
                        inner_norm.kind == "NoNorm", inner_norm.number()},
             flag("ProjectionBias", projection_bias), flag("NoConvolutionBias", !convolution_bias)}};
  }
};

struct MlpSpec {
  Index width = 1, hidden = 0;  // 0: the default
  std::string activation = "Relu";

  LayerSpec layer() const {
    return {
        "Mlp",
        {integer("Hidden", hidden == 0 ? 4 * width : hidden, 4 * width), choice("the activation", activation, "Relu")}};
  }
};

struct MoeSpec {
  Index width = 1, experts = 1, top_k = 1, hidden = 0, shared_experts = 0;
  std::string activation = "Relu", order = "SoftmaxThenTopK";
  bool normalised_gates = false;
  Fraction gate_scale = {1, 1};
  bool router_bias = false, selection_bias = false;
  Fraction capacity = {0, 1};  // 0: none
  bool floor_capacity = false;

  LayerSpec layer() const {
    const bool limited = capacity.numerator > 0;
    return {
        "Moe",
        {integer("Experts", experts, 0), integer("TopK", top_k, 1),
         integer("Hidden", hidden == 0 ? 4 * width : hidden, 4 * width), integer("SharedExperts", shared_experts, 0),
         choice("the activation", activation, "Relu"), choice("the gates' order", order, "SoftmaxThenTopK"),
         flag("NormalisedGates", normalised_gates),
         OptionSpec{
             "GateScale",
             "GateScale<" + std::to_string(gate_scale.numerator) + ", " + std::to_string(gate_scale.denominator) + ">",
             gate_scale.value() == 1, gate_scale.value()},
         flag("RouterBias", router_bias), flag("SelectionBias", selection_bias),
         OptionSpec{"Capacity",
                    limited ? (floor_capacity ? "FloorCapacity<" : "Capacity<") + std::to_string(capacity.numerator) +
                                  ", " + std::to_string(capacity.denominator) + ">"
                            : "no Capacity",
                    !limited, capacity.value()}}};
  }
};

struct AttentionSpec {
  Index width = 1, heads = 1, context = 1;
  Index key_value_heads = 0;    // 0: as many as heads
  Index head_width = 0;         // 0: width / heads
  Index rotary_base = 10'000;   // 0: no positions
  Index rotary_width = 0;       // 0: that of a head
  std::string biases = "none";  // or "InputBiases" or "Biases"

  LayerSpec layer() const {
    const Index default_width = heads > 0 && width % heads == 0 ? width / heads : 0;
    const Index head = head_width == 0 ? default_width : head_width;
    const Index whole = rotary_base == 0 ? 0 : head;
    OptionSpec positions = integer("Rotary", rotary_base, 10'000);
    if (rotary_base == 0) positions = {"Rotary", "NoPositions"};
    return {
        "Attention",
        {integer("Heads", heads, 0), integer("KeyValueHeads", key_value_heads == 0 ? heads : key_value_heads, heads),
         integer("HeadWidth", head, default_width), integer("Context", context, 0), positions,
         integer("RotaryWidth", rotary_width == 0 ? whole : rotary_width, whole),
         choice("the biases", biases == "none" ? "no biases" : biases, "no biases")}};
  }
};

inline OptionSpec pre_norm(const NormSpec& norm) { return {"PreNorm", norm.spelling(), false, norm.number()}; }

/// The options of a whole model, without layers.
inline Architecture language_model(Index vocabulary, Index width, bool tied_head, const NormSpec& final_norm) {
  return {{integer("Vocabulary", vocabulary, 0), integer("Width", width, 0),
           choice("the head", tied_head ? "TiedHead" : "Head", "TiedHead"),
           OptionSpec{"FinalNorm", "FinalNorm<" + final_norm.spelling() + ">", final_norm.spelling() == "RmsNorm<>",
                      final_norm.number()}},
          {},
          {}};
}

}  // namespace moe_mamba::inline v0_2::families
