// Any bytes as a safetensors file: refused by name, or tensors that lie inside the file.
#include "moe_mamba/io/safetensors.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <stdexcept>
#include <vector>

#include "moe_mamba/io/safetensors_reader.hpp"

using namespace moe_mamba;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const SafetensorsContents contents = parse_safetensors(bytes, "model.safetensors");
    for (const TensorEntry& tensor : contents.tensors) {
      if (tensor.data.data() < bytes.data() || tensor.data.data() + tensor.data.size() > bytes.data() + size)
        std::abort();
      std::vector<float> values(static_cast<std::size_t>(elements(tensor)));
      try {
        copy_converted(tensor, values.data());
      } catch (const std::runtime_error&) {  // not a floating-point type
      }
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
