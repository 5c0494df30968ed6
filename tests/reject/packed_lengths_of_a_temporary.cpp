// expect: Shape::packed\(\) borrows the lengths: give it a variable that lives as long as the shape, not a temporary
#include <vector>

#include "moe_mamba/core/view.hpp"

using namespace moe_mamba;

std::vector<Index> read();

Shape next() { return Shape::packed(read()); }
