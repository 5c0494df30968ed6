#pragma once

#include "moe_mamba/families/mamba.hpp"

/// Falcon-Mamba (Zuo et al. 2024, arXiv 2410.05355): Mamba with RMS norms without gains for step, B and C.
namespace moe_mamba::inline v0_2::families {

inline constexpr Family falcon_mamba{
    .name = "falcon_mamba",
    .recognises = [](const Config& config) { return config.is_text("model_type", "falcon_mamba"); },
    .architecture =
        [](const Config& config) {
          const Fraction epsilon = config.epsilon("mixer_rms_eps", {1, 1'000'000});
          return detail::mamba_architecture(config, {"RmsNorm", epsilon, false}, "mixer_rms_eps");
        },
    .parts = mamba.parts,
    .head = mamba.head,
    .stores_tied_head = false,
    .config =
        [](const Architecture& model, const std::string& type) {
          auto config = detail::mamba_config(model, type);
          const OptionSpec* norm = model.layers.empty() ? nullptr : model.layers.front().find("InnerNorm");
          config.number("mixer_rms_eps", norm == nullptr ? 1e-6 : norm->number);
          config.text("model_type", "falcon_mamba").raw("architectures", "[\"FalconMambaForCausalLM\"]");
          return config.finish();
        },
    .base = "backbone.",
};

}  // namespace moe_mamba::inline v0_2::families
