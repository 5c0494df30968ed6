// A user's program that only names a model and reads JSON.
#include <moe_mamba/io/json.hpp>
#include <moe_mamba/model/cost.hpp>
#include <string>

#include "definition.hpp"

int main() {
  static_assert(moe_mamba::cost<Net>.parameters > 0);
  return moe_mamba::parse_json("[1, 2]", "text").elements.size() == 2 ? 0 : 1;
}
