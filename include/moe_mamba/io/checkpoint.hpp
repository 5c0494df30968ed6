#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/io/model_file.hpp"
#include "moe_mamba/io/training_record.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"

/// Checkpoints: safetensors files that hold all that a training run needs to go on as if never interrupted. They are
/// model files as well: load() takes the parameters from them.
namespace moe_mamba {

/// Whether a checkpoint may go on as another run than the one it was written by: of another definition, with parameters
/// of the same names and shapes, another optimizer, schedule, clip_norm, carry_states or other auxiliary losses. What a
/// checkpoint does not say, as older ones do not, is not compared. Carried states go on only in a run that carries them
/// too, by the same definition; in another they begin from nothing.
enum class OtherRun { refused, accepted };

/// What a checkpoint tells beside what it puts back.
struct CheckpointInfo {
  WindowsState windows;                         ///< where the data stood
  std::map<std::string, std::string> metadata;  ///< the caller's own: all but what begins with "moe_mamba."
};

namespace detail {

/// The numbers of a tensor of the training, where they lie in the file; it must be of type T and, unless that is
/// negative, of this size. Where an older file has them at an address that T cannot have, they are copied to `moved`.
template <TensorScalar T>
std::span<const T> training_numbers(const SafetensorsFile& file, const char* name, Index size, std::vector<T>& moved) {
  const TensorEntry& tensor = file.at(name);
  const std::string field = "tensor " + in_quotes(name);
  if (tensor.type != data_type_of<T>) {
    throw_content_error(file.path().string(), field + ": dtype", std::string(name_of(tensor.type)),
                        std::string(name_of(data_type_of<T>)));
  }
  if (tensor.shape.size() != 1 || (size >= 0 && elements(tensor) != size)) {
    throw_content_error(file.path().string(), field + ": shape", shape_text(tensor.shape),
                        size >= 0 ? shape_text(std::array{size}) : "one extent");
  }
  const auto count = static_cast<std::size_t>(elements(tensor));
  if (reinterpret_cast<std::uintptr_t>(tensor.data.data()) % alignof(T) == 0) {
    return {reinterpret_cast<const T*>(tensor.data.data()), count};
  }
  moved.resize(count);
  std::memcpy(moved.data(), tensor.data.data(), tensor.data.size());
  return moved;
}

}  // namespace detail

/// Writes a checkpoint of a trainer between two updates, whole or not at all. Throws std::runtime_error where it cannot
/// be written, std::invalid_argument for metadata whose key begins with "moe_mamba.", as the library's own do, and
/// std::logic_error during another thread's call of the trainer and between accumulate() and update().
template <class Definition, StorageScalar S, class Backend, Schedule Rate>
void save_checkpoint(const std::filesystem::path& path, Trainer<Definition, S, Backend, Rate>& trainer,
                     const WindowsState& windows = {}, std::map<std::string, std::string> metadata = {}) {
  detail::check_keys(metadata);
  const ExclusiveCall call(trainer.device().in_use(), "trainer");
  const auto progress = trainer.progress(call);
  const auto values =
      HostNumbers<S>::template of<typename Backend::Memory>(std::as_const(trainer.model()).parameters());
  std::vector<TensorSource> tensors;
  const auto add_numbers = [&]<TensorScalar T>(const char* name, const HostNumbers<T>& numbers) {
    if (numbers.empty()) return;
    tensors.push_back({name, data_type_of<T>, {static_cast<Index>(numbers.size())}, std::as_bytes(numbers.span())});
  };
  add_numbers("training.first_moment", progress.first_moment);
  add_numbers("training.second_moment", progress.second_moment);
  // Wide numbers come first, so that all lie at addresses where they can be read.
  add_numbers("training.states", progress.states);
  for (auto& tensor : detail::parameter_tensors<Definition, S>(values.span())) tensors.push_back(std::move(tensor));
  add_numbers("training.remainder", progress.remainder);
  metadata[detail::step_key] = std::to_string(progress.steps);
  detail::tell_windows(windows, metadata);
  for (const auto& words : detail::run_words(trainer)) metadata[words.key] = words.text;
  metadata = detail::with_definition<Definition>(std::move(metadata));
  save_safetensors(path, tensors, detail::with_checksum(std::move(metadata), tensors));
}

/// Puts model and trainer back to where a checkpoint was written. Throws std::runtime_error, with both as they were,
/// for a file that is no checkpoint of this definition and storage type, or of another run unless that is accepted. All
/// is read from the file into its place once everything is checked: there is no second copy in memory. Throws
/// std::logic_error during another thread's call of the trainer.
template <class Definition, StorageScalar S, class Backend, Schedule Rate>
CheckpointInfo load_checkpoint(const std::filesystem::path& path, Trainer<Definition, S, Backend, Rate>& trainer,
                               OtherRun other = OtherRun::refused) {
  using C = compute_t<S>;
  using TrainerType = Trainer<Definition, S, Backend, Rate>;
  const ExclusiveCall call(trainer.device().in_use(), "trainer");
  trainer.model().require_parameters();
  const SafetensorsFile file(path);
  if (file.find(detail::training_tensors[0]) == nullptr && !file.metadata().contains(detail::step_key)) {
    detail::throw_file_error(path, "is no checkpoint",
                             "it holds a model without the state of a training; load() reads its parameters");
  }
  const auto words_of_run = detail::run_words(trainer);
  if (other == OtherRun::refused) {
    constexpr const char* remedy = "OtherRun::accepted, which goes on as another run where names and shapes agree";
    detail::check_definition<Definition>(file, remedy);
    for (const auto& words : words_of_run) {
      detail::check_metadata(file, words.key, words.field, words.text, remedy);
    }
  }
  detail::check_parameters<Definition>(file);
  if (!file.metadata().contains(detail::checksum_key)) {
    detail::throw_content_error(path.string(), "metadata " + detail::in_quotes(detail::checksum_key), "missing",
                                "a checkpoint, which has it");
  }
  if (!TrainerType::keeps_remainder && file.find("training.remainder") != nullptr) {
    detail::throw_content_error(path.string(), "tensor", "\"training.remainder\"",
                                "none with parameters that are stored whole");
  }
  Definition::visit_parameters([&](const Parameter& parameter) {
    const TensorEntry& tensor = file.at(parameter.name.view());
    if (tensor.type != data_type_of<S>) {
      detail::throw_content_error(path.string(), "tensor " + detail::in_quotes(tensor.name) + ": dtype",
                                  std::string(name_of(tensor.type)), std::string(name_of(data_type_of<S>)));
    }
  });

  std::array<std::vector<C>, 3> moved;
  std::vector<std::int16_t> moved_remainder;
  const HostNumbers<C> first =
      detail::training_numbers(file, "training.first_moment", Definition::parameters, moved[0]);
  const HostNumbers<C> second =
      detail::training_numbers(file, "training.second_moment", Definition::parameters, moved[1]);
  HostNumbers<std::int16_t> remainder;
  if (TrainerType::keeps_remainder) {
    remainder = detail::training_numbers(file, "training.remainder", Definition::parameters, moved_remainder);
  }
  HostNumbers<C> states;
  const auto definition = file.metadata().find(detail::definition_key);
  const bool same_states = trainer.options().carry_states &&
                           (definition == file.metadata().end() || definition->second == spelling<Definition>());
  if (file.find("training.states") != nullptr && (same_states || other == OtherRun::refused)) {
    states = detail::training_numbers(file, "training.states", -1, moved[2]);
  }
  const auto steps = static_cast<Index>(detail::metadata_number(file, detail::step_key, std::uint64_t{1} << 53));
  CheckpointInfo info{detail::told_windows(file), file.metadata()};
  std::erase_if(info.metadata, [](const auto& entry) { return entry.first.starts_with(detail::own_prefix); });

  try {
    trainer.restore({steps, first.span(), second.span(), remainder.span(), states.span()}, call);
  } catch (const std::invalid_argument& error) {
    throw FileError(detail::shown_path(path.string()) + ": " + error.what());
  }
  detail::read_parameters(file, trainer.model());
  return info;
}

}  // namespace moe_mamba
