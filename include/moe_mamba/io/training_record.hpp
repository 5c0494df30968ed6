#pragma once

#include <charconv>
#include <concepts>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "moe_mamba/io/checksum.hpp"
#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/train/selection_biases.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"

/// A checkpoint's metadata: what identifies the training run, and the position in its data.
namespace moe_mamba::inline v0_2::detail {

inline constexpr const char* step_key = "moe_mamba.step";

/// An integer of the metadata, or `otherwise`, if given, for a missing key.
inline std::uint64_t metadata_number(const SafetensorsFile& file, const std::string& key, std::uint64_t most,
                                     std::optional<std::uint64_t> otherwise = std::nullopt) {
  const auto found = file.metadata().find(key);
  const std::string where = file.path().string(), field = "metadata \"" + key + "\"";
  if (found == file.metadata().end() && otherwise) return *otherwise;
  if (found == file.metadata().end()) throw_content_error(where, field, "missing", "a checkpoint that has it");
  const std::string& text = found->second;
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || text.empty() || number > most) {
    throw_content_error(where, field, in_quotes(text), "an integer from 0 to " + std::to_string(most));
  }
  return number;
}

inline void store_windows_state(const WindowsState& windows, std::map<std::string, std::string>& metadata) {
  const std::string prefix = "moe_mamba.windows.";
  metadata[prefix + "seed"] = std::to_string(windows.seed);
  metadata[prefix + "position"] = std::to_string(windows.position);
  metadata[prefix + "order"] = std::to_string(static_cast<int>(windows.order));
  metadata[prefix + "tokens"] = std::to_string(windows.tokens);
  metadata[prefix + "length"] = std::to_string(windows.length);
  metadata[prefix + "batch"] = std::to_string(windows.batch);
}

inline WindowsState stored_windows_state(const SafetensorsFile& file) {
  constexpr auto any = std::numeric_limits<std::uint64_t>::max(), index = any / 2;
  const std::string prefix = "moe_mamba.windows.";
  const auto number = [&](const char* key) {  // missing in older files
    return static_cast<Index>(metadata_number(file, prefix + key, index, std::uint64_t{0}));
  };
  return {.seed = metadata_number(file, prefix + "seed", any),
          .position = metadata_number(file, prefix + "position", any),
          .order = static_cast<WindowsOrder>(metadata_number(file, prefix + "order", 2, std::uint64_t{0})),
          .tokens = number("tokens"),
          .length = number("length"),
          .batch = number("batch")};
}

inline std::string optimizer_text(const AdamW& optimizer) {
  return "AdamW{learning_rate " + exact_text(optimizer.learning_rate) + ", beta1 " + exact_text(optimizer.beta1) +
         ", beta2 " + exact_text(optimizer.beta2) + ", epsilon " + exact_text(optimizer.epsilon) + ", weight_decay " +
         exact_text(optimizer.weight_decay) + (optimizer.decay == Decay::everything ? ", decay everything}" : "}");
}

inline std::string schedule_text(const Constant& rate) {
  return "Constant{warmup " + std::to_string(rate.warmup) + '}';
}

inline std::string schedule_text(const Cosine& rate) {
  return "Cosine{warmup " + std::to_string(rate.warmup) + ", steps " + std::to_string(rate.steps) + ", floor " +
         exact_text(rate.floor) + '}';
}

/// A user-defined schedule: its name and some of its factors.
template <class Rate>
std::string schedule_text(const Rate& rate) {
  std::string text = type_name<Rate>() + " with the factors";
  for (Index step = 1; step <= Index{1} << 20; step *= 4) {
    text += (step == 1 ? " " : ", ") + exact_text(static_cast<double>(rate(step - 1)));
  }
  return text + " in the steps 0, 3, 15 and so on to 1048575";
}

/// A fingerprint of a user-defined schedule's factors at many more steps than its text shows: the first 16, and from
/// there on 8 per octave up to 2^24. Factors have nine digits, so that machines that differ in the last bits agree.
template <class Rate>
std::string schedule_samples(const Rate& rate) {
  std::string factors;
  const auto add = [&](Index step) {
    char buffer[32];
    const auto factor = static_cast<double>(rate(step));
    factors.append(buffer, std::to_chars(buffer, buffer + sizeof buffer, factor, std::chars_format::general, 9).ptr);
    factors += ' ';
  };
  for (Index step = 0; step < 8; ++step) add(step);
  for (int octave = 0; octave <= 20; ++octave) {
    for (Index step = 8; step < 16; ++step) add(step << octave);
  }
  add(Index{1} << 24);
  return hexadecimal(hash_text(factors, 0)) + " in the steps 0 to 16, 18, 20 and so on, 8 an octave, to 16777216";
}

/// A metadata key of checkpoints, its name in messages, and its value for a trainer.
struct RunField {
  const char* key;
  const char* name;
  std::string text;
};

template <class Definition, StorageScalar S, class Backend, Schedule Rate>
std::vector<RunField> run_fields(const Trainer<Definition, S, Backend, Rate>& trainer) {
  const TrainerOptions& options = trainer.options();
  std::string options_text =
      "clip_norm " + exact_text(options.clip_norm) + ", carry_states " + (options.carry_states ? "true" : "false");
  if (!selection_bias_places<Definition>().empty()) {
    options_text += ", selection_bias_rate " + exact_text(options.selection_bias_rate);
  }
  std::vector<RunField> fields = {
      {"moe_mamba.training.optimizer", "the optimizer it was trained with", optimizer_text(trainer.optimizer())},
      {"moe_mamba.training.schedule", "the schedule it was trained with", schedule_text(trainer.schedule())},
      {"moe_mamba.training.options", "the trainer options it was trained with", options_text},
      {"moe_mamba.training.definition", "the definition it was trained with (auxiliary losses included)",
       spelling<Definition>(AuxiliaryLosses::spelled)}};
  if constexpr (!std::same_as<Rate, Constant> && !std::same_as<Rate, Cosine>) {  // whose texts are complete
    fields.push_back({"moe_mamba.training.schedule_samples", "the fingerprint of its schedule's factors",
                      schedule_samples(trainer.schedule())});
  }
  return fields;
}

}  // namespace moe_mamba::inline v0_2::detail
