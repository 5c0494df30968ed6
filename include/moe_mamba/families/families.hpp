#pragma once

#include <array>
#include <string>

#include "moe_mamba/families/black_mamba.hpp"
#include "moe_mamba/families/falcon_mamba.hpp"
#include "moe_mamba/families/jamba.hpp"
#include "moe_mamba/families/llama.hpp"
#include "moe_mamba/families/mamba.hpp"
#include "moe_mamba/families/mixtral.hpp"

namespace moe_mamba::inline v0_2::families {

/// All supported families, in the order in which they are tried for writing a model. A new family is one more entry.
inline constexpr std::array<const Family*, 9> all{&mamba, &falcon_mamba, &black_mamba, &mamba_ssm, &mixtral,
                                                  &jamba, &mistral,      &llama,       &qwen2};

inline std::string names() {
  std::string text;
  for (const Family* family : all) text += (text.empty() ? "" : ", ") + std::string(family->name);
  return text;
}

/// The family of a config.json. First rejects encoder-decoder models and quantised tensors, which no family supports.
inline const Family& family_of(const Config& config) {
  const std::string type = config.has("model_type") ? config.find("model_type")->text() : "missing";
  // Switch Transformers are T5 models: an encoder, and a decoder with cross-attention to its output.
  const bool has_encoder = config.boolean("is_encoder_decoder", false);
  if (has_encoder || config.is_text("model_type", "switch_transformers")) {
    config.refuse("model_type",
                  type + ", an encoder-decoder model" + (has_encoder ? ", as is_encoder_decoder is true" : ""),
                  "a decoder-only language model: one of " + names());
  }
  for (const Family* family : all) {
    if (!family->recognises(config)) continue;
    config.require_none("quantization_config", "quantised tensors are not supported");
    return *family;
  }
  config.refuse("model_type", type, "a model of " + names());
}

}  // namespace moe_mamba::inline v0_2::families
