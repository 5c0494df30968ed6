#pragma once

#include <array>
#include <string>

#include "moe_mamba/families/black_mamba.hpp"
#include "moe_mamba/families/falcon_mamba.hpp"
#include "moe_mamba/families/jamba.hpp"
#include "moe_mamba/families/llama.hpp"
#include "moe_mamba/families/mamba.hpp"
#include "moe_mamba/families/mixtral.hpp"

namespace moe_mamba::families {

/// Every family that is known, in the order in which one is looked for to write a model. A new one is one entry.
inline constexpr std::array<const Family*, 9> all{&mamba, &falcon_mamba, &black_mamba, &mamba_ssm, &mixtral,
                                                  &jamba, &mistral,      &llama,       &qwen2};

inline std::string names() {
  std::string text;
  for (const Family* family : all) text += (text.empty() ? "" : ", ") + std::string(family->name);
  return text;
}

/// The family of a config.json. Refuses first what no family's code can be of: an encoder with a decoder, and tensors
/// that are not the numbers that the fields speak of.
inline const Family& family_of(const Config& config) {
  const std::string type = config.has("model_type") ? config.find("model_type")->text() : "missing";
  // Switch Transformers are T5: an encoder reads the text, and a decoder attends to what that made of it.
  const bool has_encoder = config.boolean("is_encoder_decoder", false);
  if (has_encoder || config.is_text("model_type", "switch_transformers")) {
    config.refuse("model_type",
                  type + ", an encoder with a decoder" + (has_encoder ? " as is_encoder_decoder is true" : ""),
                  "a causal language model, which is a decoder alone: one of " + names());
  }
  for (const Family* family : all) {
    if (!family->recognises(config)) continue;
    config.require_none("quantization_config", "tensors must be the model's numbers themselves, not quantized");
    return *family;
  }
  config.refuse("model_type", type, "a model of " + names());
}

}  // namespace moe_mamba::families
