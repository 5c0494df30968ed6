#pragma once

#include <array>
#include <charconv>
#include <string>

#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/train/trainer.hpp"

/// What makes a training the run that it is, beside its data: in words, as a checkpoint keeps it.
namespace moe_mamba::detail {

/// The shortest text that gives the same number again.
inline std::string exact_text(double value) {
  char buffer[32];
  return std::string(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
}

inline std::string optimizer_text(const AdamW& optimizer) {
  return "AdamW{learning_rate " + exact_text(optimizer.learning_rate) + ", beta1 " + exact_text(optimizer.beta1) +
         ", beta2 " + exact_text(optimizer.beta2) + ", epsilon " + exact_text(optimizer.epsilon) + ", weight_decay " +
         exact_text(optimizer.weight_decay) + '}';
}

inline std::string schedule_text(const Constant& rate) {
  return "Constant{warmup " + std::to_string(rate.warmup) + '}';
}

inline std::string schedule_text(const Cosine& rate) {
  return "Cosine{warmup " + std::to_string(rate.warmup) + ", steps " + std::to_string(rate.steps) + ", floor " +
         exact_text(rate.floor) + '}';
}

/// One of the program's own: its name, and some of what it gives.
template <class Rate>
std::string schedule_text(const Rate& rate) {
  std::string text = type_name<Rate>() + " with the factors";
  for (Index step = 1; step <= Index{1} << 20; step *= 4) {
    text += (step == 1 ? " " : ", ") + exact_text(static_cast<double>(rate(step - 1)));
  }
  return text + " in the steps 0, 3, 15 and so on to 1048575";
}

/// A metadata key of checkpoints, what it is called in messages, and what it says of a trainer.
struct RunWords {
  const char* key;
  const char* field;
  std::string text;
};

template <class Definition, StorageScalar S, class Backend, Schedule Rate>
std::array<RunWords, 4> run_words(const Trainer<Definition, S, Backend, Rate>& trainer) {
  const TrainerOptions& options = trainer.options();
  return {
      {{"moe_mamba.training.optimizer", "the optimizer", optimizer_text(trainer.optimizer())},
       {"moe_mamba.training.schedule", "the schedule", schedule_text(trainer.schedule())},
       {"moe_mamba.training.options", "the trainer's options",
        "clip_norm " + exact_text(options.clip_norm) + ", carry_states " + (options.carry_states ? "true" : "false")},
       {"moe_mamba.training.definition", "the definition with its auxiliary losses",
        spelling<Definition>(AuxiliaryLosses::spelled)}}};
}

}  // namespace moe_mamba::detail
