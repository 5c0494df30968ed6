#pragma once

#include <vector>

#include "study.hpp"

/// The comparisons that a program was built with.
namespace paper {

/// On two cores, in half an hour.
std::vector<Group> core_groups();
/// The same and more, for --hours.
std::vector<Group> more_groups();
/// For those: experts inside Mamba, in every layer and in every other one.
std::vector<Entry> inner_every();
std::vector<Entry> inner_other();
/// On a CUDA device.
std::vector<Group> device_groups();
/// The same in the paper's size, for days.
std::vector<Group> full_groups();

}  // namespace paper
