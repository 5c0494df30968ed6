#pragma once

#include "moe_mamba/core/standard.hpp"

/// Checks of definitions. Each is a class template with a static_assert in it, whose arguments are what is checked, so that
/// every compiler's report shows them beside the sentence.
namespace moe_mamba::inline v0_2::detail {

/// Makes the checks. A failed one is reported and has no other consequence: the rest of a definition is compiled as if
/// it had passed, and nothing false is said of what contains it. (Outside a requires-expression clang takes a call that
/// makes a failed check for no constant, and then whoever made it for no layer.)
template <class... Checks>
consteval void check() {
  [[maybe_unused]] const bool made = (requires { Checks(); } && ...);
}

}  // namespace moe_mamba::inline v0_2::detail
