// expect: batches borrow their numbers: give them variables that live as long as they do, not temporaries
#include <vector>

#include "moe_mamba/train/batch.hpp"

using namespace moe_mamba;

std::vector<float> read(Index count);

SeriesBatch<float> next() { return {read(8), read(4), {2, 2}}; }
