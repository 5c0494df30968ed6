#pragma once

#include <cstring>
#include <filesystem>
#include <string>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/view.hpp"
#include "moe_mamba/io/safetensors.hpp"
#include "support/catch.hpp"

/// Results of other code, and their errors; see tests/fixtures/README.md for their origin.
namespace test {

inline std::filesystem::path fixture_folder(const std::string& name) {
  return std::filesystem::path(__FILE__).parent_path().parent_path() / "fixtures" / name;
}

/// A file of tensors, with a tensor error.<precision>.<name> for each.
class ReferenceFile {
 public:
  explicit ReferenceFile(const std::filesystem::path& path) : file_(path) {}

  std::vector<double> numbers(const std::string& tensor) const {
    const moe_mamba::TensorEntry& entry = file_.at(tensor);
    std::vector<double> values(static_cast<std::size_t>(moe_mamba::elements(entry)));
    moe_mamba::copy_converted(entry, values.data());
    return values;
  }
  std::vector<moe_mamba::Token> tokens(const std::string& tensor) const {
    const moe_mamba::TensorEntry& entry = file_.at(tensor);
    std::vector<moe_mamba::Token> values(static_cast<std::size_t>(moe_mamba::elements(entry)));
    REQUIRE((entry.type == moe_mamba::DataType::I32 && entry.data.size() == values.size() * sizeof(moe_mamba::Token)));
    std::memcpy(values.data(), entry.data.data(), entry.data.size());
    return values;
  }
  /// The batch and length of a tensor (B, L) or (B, L, …).
  moe_mamba::Shape shape(const std::string& tensor) const {
    const auto& shape = file_.at(tensor).shape;
    return {shape[0], shape[1]};
  }

  /// The tolerance for a result in S: twice the error of the other code in that precision.
  template <class S>
  double bound(const std::string& tensor) const {
    const char* precision = std::is_same_v<S, moe_mamba::bfloat16> ? "error.bfloat16."
                            : std::is_same_v<S, float>             ? "error.float32."
                                                                   : "error.float64.";
    return 2 * numbers(precision + tensor).front();
  }

  const moe_mamba::SafetensorsFile& file() const { return file_; }

 private:
  moe_mamba::SafetensorsFile file_;
};

}  // namespace test
