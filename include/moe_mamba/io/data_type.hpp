#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "moe_mamba/core/scalar.hpp"

namespace moe_mamba::inline v0_2 {

/// Type of a tensor's elements.
enum class DataType { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U64, U32, U16, U8, BOOL };

namespace detail {

struct DataTypeName {
  std::string_view name;
  Index bytes;
};

/// In the order of DataType.
inline constexpr std::array<DataTypeName, 15> data_types{{{"F64", 8},
                                                          {"F32", 4},
                                                          {"F16", 2},
                                                          {"BF16", 2},
                                                          {"F8_E4M3", 1},
                                                          {"F8_E5M2", 1},
                                                          {"I64", 8},
                                                          {"I32", 4},
                                                          {"I16", 2},
                                                          {"I8", 1},
                                                          {"U64", 8},
                                                          {"U32", 4},
                                                          {"U16", 2},
                                                          {"U8", 1},
                                                          {"BOOL", 1}}};

}  // namespace detail

/// The dtype in a safetensors header.
constexpr std::string_view name_of(DataType type) { return detail::data_types[static_cast<std::size_t>(type)].name; }

/// Bytes of one element.
constexpr Index bytes_of(DataType type) { return detail::data_types[static_cast<std::size_t>(type)].bytes; }

}  // namespace moe_mamba::inline v0_2
