#pragma once

#include "moe_mamba/core/standard.hpp"

/// Checks of definitions. Each is a class template with a static_assert, whose template arguments are the checked values, so that
/// every compiler shows them with the message.
namespace moe_mamba::inline v0_2::detail {

/// Performs the checks. A failed one is reported and has no other effect: the rest of a definition is compiled as if it had
/// passed, without misleading errors about the types that contain it. (Outside a requires-expression, clang treats a call with a
/// failed check as no constant expression, and the type that calls it as no layer.)
template <class... Checks>
consteval void check() {
  [[maybe_unused]] const bool made = (requires { Checks(); } && ...);
}

}  // namespace moe_mamba::inline v0_2::detail
