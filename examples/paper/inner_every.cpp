/// What --hours adds on two cores: experts inside Mamba, in every layer.
#include "catalogue.hpp"
#include "inner_systems.hpp"

namespace paper {

std::vector<Entry> inner_every() { return inner_entries<false>(); }

}  // namespace paper
