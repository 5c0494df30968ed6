#pragma once

#include <functional>
#include <string>

/// What generating costs after a context.
namespace paper {

/// Measures, on one thread, the time of a step after contexts of 1,024 to 131,072 bytes, and the bytes of running state that
/// each takes, for Mamba, MoE-Mamba and both Transformers. The contexts are read for real; the parameters are as initialised,
/// which costs the same as trained ones. `threads` read the contexts. Returns CSV: system, context, microseconds_per_token,
/// state_bytes; nothing if `stop()` becomes true.
std::string inference_csv(int threads, const std::function<bool()>& stop);

}  // namespace paper
