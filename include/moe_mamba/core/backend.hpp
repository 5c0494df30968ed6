#pragma once

/// The backends that a model can be given as a template argument. Naming one costs nothing; its operations come with
/// moe_mamba.hpp (Cpu).
namespace moe_mamba {

namespace cpu {
class Device;
}

/// How many threads a device uses, the caller's own included.
struct Threads {
  int count = 1;
};

/// The CPU as a backend.
using Cpu = cpu::Device;

}  // namespace moe_mamba
