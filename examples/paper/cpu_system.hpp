#pragma once

#include <string>
#include <utility>

#include "moe_mamba/moe_mamba.hpp"
#include "systems.hpp"
#include "training.hpp"

/// Systems that are trained on one thread of the CPU each.
namespace paper {

/// The sizes for two cores. Windows have 128 bytes, which a Transformer sees all of.
using Width24 = Size<24, 2>;
using Width48 = Size<48, 2>;
inline constexpr Index cpu_length = 128;

template <class Definition>
System cpu_system(std::string key, std::string name) {
  return system_of<Definition, float>(std::move(key), std::move(name),
                                      [] { return moe_mamba::Cpu(moe_mamba::Threads{1}); });
}

}  // namespace paper
