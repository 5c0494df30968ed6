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

/// The family of a config.json.
inline const Family& family_of(const Config& config) {
  for (const Family* family : all) {
    if (family->recognises(config)) return *family;
  }
  // Switch Transformers are T5: an encoder reads the text, and a decoder attends to what that made of it.
  if (config.is_text("model_type", "switch_transformers") || config.boolean("is_encoder_decoder", false)) {
    config.refuse(
        "model_type",
        (config.has("model_type") ? config.find("model_type")->text() : "missing") + ", an encoder with a decoder",
        "a causal language model, which is a decoder alone: one of " + names());
  }
  config.refuse("model_type", config.has("model_type") ? config.find("model_type")->text() : "missing",
                "a model of " + names());
}

}  // namespace moe_mamba::families
