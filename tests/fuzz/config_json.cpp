// Any bytes as a config.json: refused by name, or a model that has a spelling as a definition.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "moe_mamba/families/families.hpp"

using namespace moe_mamba::families;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const Config config("config.json",
                        moe_mamba::parse_json({reinterpret_cast<const char*>(data), size}, "config.json"));
    const Architecture model = family_of(config).architecture(config);
    if (model.spelling().empty()) std::abort();
    if (difference(model, model)) std::abort();
  } catch (const std::runtime_error&) {
  }
  return 0;
}
