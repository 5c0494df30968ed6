#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/model/workspace.hpp"
#include "moe_mamba/ops/optimizer.hpp"
#include "moe_mamba/runtime/array.hpp"
#include "moe_mamba/train/trainer_options.hpp"

namespace moe_mamba::inline v0_2 {

/// The caller's memory for a trainer, which must outlive it; the trainer allocates what is left empty. The arrays must
/// not overlap each other or the model's parameters. All but `states` have Definition::parameters numbers, and are
/// cleared.
template <class Definition, StorageScalar S, class Backend>
struct TrainerMemory {
  template <class T>
  using Span = SpanOf<T, typename Backend::Memory>;
  Workspace<Definition, S, Backend>* workspace = nullptr;  ///< for training, on the trainer's device
  Span<compute_t<S>> gradients = {}, first_moment = {}, second_moment = {};
  Span<std::int16_t> remainder = {};  ///< with bfloat16 parameters only
  /// Definition::Body::state_size numbers for each sequence of the largest batch, or more; with carry_states only.
  Span<compute_t<S>> states = {};

  /// Throws std::invalid_argument if a trainer of these parameters on this device, with these options, cannot use it,
  /// before any of it is written.
  void check(const Backend& device, const TrainerOptions& options, Span<S> parameters) const {
    constexpr auto count = static_cast<std::size_t>(Definition::parameters);
    constexpr std::size_t kept = AdamWUpdate<compute_t<S>, S>::keeps_remainder ? count : 0;
    if (workspace != nullptr) {
      require(workspace->purpose() == Purpose::training, "memory.workspace->purpose()", "inference", "training");
      require(&workspace->device() == &device, "memory.workspace->device()", "another", "the trainer's");
      require(options.largest == Shape{}, "options.largest", "given",
              "the default with memory.workspace, which determines it");
    }
    check_size("memory.gradients.size()", gradients.size(), count);
    check_size("memory.first_moment.size()", first_moment.size(), count);
    check_size("memory.second_moment.size()", second_moment.size(), count);
    check_size("memory.remainder.size()", remainder.size(), kept);
    require(states.empty() || options.carry_states, "memory.states.size()", states.size(), "0 without carry_states");
    const Part parts[]{part("the model's parameters", parameters),
                       part("memory.workspace", workspace != nullptr ? workspace->memory() : Span<std::byte>()),
                       part("memory.gradients", gradients),
                       part("memory.first_moment", first_moment),
                       part("memory.second_moment", second_moment),
                       part("memory.remainder", remainder),
                       part("memory.states", states)};
    for (const Part& one : parts) {
      for (const Part* other = parts; other != &one; ++other) {
        require(one.end <= other->begin || other->end <= one.begin, one.name,
                (std::string("overlapping ") + other->name).c_str(), "separate memory");
      }
    }
  }

 private:
  struct Part {
    const char* name;
    std::uintptr_t begin, end;
  };
  static Part part(const char* name, const auto& span) {
    const auto begin = span.empty() ? 0 : reinterpret_cast<std::uintptr_t>(span.data());
    return {name, begin, begin + span.size() * sizeof(*span.data())};
  }
  static void check_size(const char* name, std::size_t size, std::size_t wanted) {
    require(size == 0 || size == wanted, name, size, [&] { return std::to_string(wanted) + ", or empty"; });
  }
};

}  // namespace moe_mamba::inline v0_2
