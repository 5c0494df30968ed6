/// What --hours adds on two cores: experts inside Mamba, in every other layer.
#include "catalogue.hpp"
#include "inner_systems.hpp"

namespace paper {

std::vector<Entry> inner_other() { return inner_entries<true>(); }

}  // namespace paper
