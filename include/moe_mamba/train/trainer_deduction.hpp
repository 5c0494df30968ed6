#pragma once

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/train/schedule.hpp"
#include "moe_mamba/train/trainer_memory.hpp"
#include "moe_mamba/train/trainer_options.hpp"

/// Deduction guides of Trainer. If an argument is not a schedule, the class reports it.
namespace moe_mamba::inline v0_2 {

template <class Definition, StorageScalar S, class Backend, class Rate>
class Trainer;

template <class Definition, StorageScalar S, class Backend>
Trainer(Model<Definition, S, Backend>&, AdamW = {}) -> Trainer<Definition, S, Backend, Constant>;
template <class Definition, StorageScalar S, class Backend, class Rate>
Trainer(Model<Definition, S, Backend>&, AdamW, Rate, TrainerOptions = {}) -> Trainer<Definition, S, Backend, Rate>;
template <class Definition, StorageScalar S, class Backend>
Trainer(Model<Definition, S, Backend>&, Backend&, AdamW = {}) -> Trainer<Definition, S, Backend, Constant>;
template <class Definition, StorageScalar S, class Backend, class Rate>
Trainer(Model<Definition, S, Backend>&, Backend&, AdamW, Rate, TrainerOptions = {},
        TrainerMemory<Definition, S, Backend> = {}) -> Trainer<Definition, S, Backend, Rate>;
template <class Definition, StorageScalar S, class Backend, Schedule Rate, class... Rest>
Trainer(Model<Definition, S, Backend>&, Rate, Rest...) -> Trainer<Definition, S, Backend, Rate>;
template <class Definition, StorageScalar S, class Backend, Schedule Rate, class... Rest>
Trainer(Model<Definition, S, Backend>&, Backend&, Rate, Rest...) -> Trainer<Definition, S, Backend, Rate>;

}  // namespace moe_mamba::inline v0_2
