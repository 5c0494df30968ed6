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

/// Checkpoints: safetensors files with everything that a training run needs to resume as if never interrupted. They are
/// model files as well: load() reads the parameters from them.
namespace moe_mamba::inline v0_2 {

/// Whether a checkpoint may be resumed by a run other than the one that wrote it: with another definition whose
/// parameters have the same names and shapes, or another optimizer, schedule, clip_norm, carry_states,
/// selection_bias_rate (if there is such a bias) or auxiliary losses. Properties that a checkpoint does not record,
/// because it is older, are not compared. Carried states are restored only in a run with the same definition that
/// carries them too; otherwise they start at zero.
enum class OtherRun { refused, accepted };

/// What load_checkpoint() returns; model and trainer are restored in place.
struct CheckpointInfo {
  WindowsState windows;                         ///< position in the data
  std::map<std::string, std::string> metadata;  ///< the caller's own: all keys that do not begin with "moe_mamba."
};

namespace detail {

/// The elements of a tensor of the training state, in the mapped file; the tensor must be of type T and, unless `size`
/// is negative, of that size. Misaligned elements, as in older files, are copied to `aligned` first.
template <TensorScalar T>
std::span<const T> training_numbers(const SafetensorsFile& file, const char* name, Index size,
                                    std::vector<T>& aligned) {
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
  aligned.resize(count);
  std::memcpy(aligned.data(), tensor.data.data(), tensor.data.size());
  return aligned;
}

}  // namespace detail

/// Atomically writes a checkpoint of a trainer between two updates. Throws std::runtime_error if it cannot be written,
/// std::invalid_argument for metadata whose key begins with "moe_mamba.", as the library's own do, and std::logic_error
/// during another thread's call of the trainer and between accumulate() and update().
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
  // Wider types come first, so that all tensors are aligned.
  add_numbers("training.states", progress.states);
  for (auto& tensor : detail::parameter_tensors<Definition, S>(values.span())) tensors.push_back(std::move(tensor));
  add_numbers("training.remainder", progress.remainder);
  metadata[detail::step_key] = std::to_string(progress.steps);
  detail::store_windows_state(windows, metadata);
  for (const auto& field : detail::run_fields(trainer)) metadata[field.key] = field.text;
  metadata = detail::with_definition<Definition>(std::move(metadata));
  save_safetensors(path, tensors, detail::with_checksum(std::move(metadata), tensors));
}

/// Restores model and trainer from a checkpoint. Throws std::runtime_error, leaving both unchanged, for a file that is
/// not a checkpoint of this definition and storage type, or of another run unless that is accepted. Everything is
/// checked first and then read directly into its destination: there is no second copy in memory. Throws
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
    detail::throw_file_error(path, "is not a checkpoint",
                             "it holds a model without training state; load() reads its parameters");
  }
  if (other == OtherRun::refused) {
    constexpr const char* remedy = "OtherRun::accepted, which resumes as another run if names and shapes agree";
    detail::check_definition<Definition>(file, remedy);
    for (const auto& field : detail::run_fields(trainer)) {
      detail::check_metadata(file, field.key, field.name, field.text, remedy);
    }
  }
  detail::check_parameters<Definition>(file);
  if (!file.metadata().contains(detail::checksum_key)) {
    detail::throw_content_error(path.string(), "metadata " + detail::in_quotes(detail::checksum_key), "missing",
                                "a checkpoint that has it");
  }
  if (!TrainerType::keeps_remainder && file.find("training.remainder") != nullptr) {
    detail::throw_content_error(path.string(), "tensor", "\"training.remainder\"",
                                "none for parameters without a remainder");
  }
  Definition::visit_parameters([&](const Parameter& parameter) {
    const TensorEntry& tensor = file.at(parameter.name.view());
    if (tensor.type != data_type_of<S>) {
      detail::throw_content_error(path.string(), "tensor " + detail::in_quotes(tensor.name) + ": dtype",
                                  std::string(name_of(tensor.type)), std::string(name_of(data_type_of<S>)));
    }
  });

  std::array<std::vector<C>, 3> aligned;
  std::vector<std::int16_t> aligned_remainder;
  const HostNumbers<C> first =
      detail::training_numbers(file, "training.first_moment", Definition::parameters, aligned[0]);
  const HostNumbers<C> second =
      detail::training_numbers(file, "training.second_moment", Definition::parameters, aligned[1]);
  HostNumbers<std::int16_t> remainder;
  if (TrainerType::keeps_remainder) {
    remainder = detail::training_numbers(file, "training.remainder", Definition::parameters, aligned_remainder);
  }
  HostNumbers<C> states;
  const auto definition = file.metadata().find(detail::definition_key);
  const bool same_states = trainer.options().carry_states &&
                           (definition == file.metadata().end() || definition->second == spelling<Definition>());
  if (file.find("training.states") != nullptr && (same_states || other == OtherRun::refused)) {
    states = detail::training_numbers(file, "training.states", -1, aligned[2]);
  }
  const auto steps = static_cast<Index>(detail::metadata_number(file, detail::step_key, std::uint64_t{1} << 53));
  CheckpointInfo info{detail::stored_windows_state(file), file.metadata()};
  std::erase_if(info.metadata, [](const auto& entry) { return entry.first.starts_with(detail::own_prefix); });

  try {
    trainer.restore({steps, first.span(), second.span(), remainder.span(), states.span()}, call);
  } catch (const std::invalid_argument& error) {
    throw FileError(detail::shown_path(path.string()) + ": " + error.what());
  }
  detail::read_parameters(file, trainer.model());
  return info;
}

}  // namespace moe_mamba::inline v0_2
