#pragma once

#include <array>
#include <cstddef>

#include "moe_mamba/blocks/parameter.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/core/static_check.hpp"
#include "moe_mamba/model/stage.hpp"

/// The cost of a definition and the layout of its parameters, known at compile time.
namespace moe_mamba::inline v0_2 {

struct Cost {
  Index parameters;  ///< elements of all parameters
  /// Parameters used per token: of a mixture only the chosen and shared experts, of an embedding one row unless it is
  /// also the head.
  Index active_parameters;
  /// Operations of matrix products, convolutions (2 per tap), scans (7 per state) and attention (4 per element of a
  /// head and position, with a full window) for one token; element-wise work between them is not counted.
  double flops_per_token;
  /// Forward and backward pass: three times the forward pass, as a product's backward pass is two products. (A sequence
  /// model without the gradient with respect to its inputs saves one product of the input layer.)
  double training_flops_per_token;
  Index state_bytes;  ///< the running state of one sequence
  /// Saved activations of a training step, per token of a sequence of 4096: on the CPU, and on a CUDA device unless
  /// parameters are bfloat16, for which it is little more than half of that.
  Index activation_bytes_per_token;
};

/// The cost of a definition whose parameters are stored as S.
template <class Definition, StorageScalar S = float>
inline constexpr Cost cost = [] {
  detail::check<detail::WholeModel<Definition>>();
  if constexpr (ModelDefinition<Definition>) {
    using C = compute_t<S>;
    using Body = typename Definition::Body;
    constexpr Shape shape{1, 4096};
    constexpr LoneDevice device{};
    constexpr std::size_t kept =
        Body::template tape_bytes<C>(device, shape) + 2 * sizeof(C) * shape.tokens() * Definition::width;
    return Cost{.parameters = Definition::parameters,
                .active_parameters = Definition::active_parameters,
                .flops_per_token = Definition::flops_per_token,
                .training_flops_per_token = 3 * Definition::flops_per_token,
                .state_bytes = Body::state_size * static_cast<Index>(sizeof(C)),
                .activation_bytes_per_token = static_cast<Index>(kept) / shape.tokens()};
  } else {
    return Cost{};
  }
}();

/// Every parameter of a definition with its name, shape, kind and offset, in the order of their offsets.
template <class Definition>
constexpr std::array<Parameter, static_cast<std::size_t>(Definition::parameter_count)> parameter_list() {
  std::array<Parameter, static_cast<std::size_t>(Definition::parameter_count)> list{};
  std::size_t count = 0;
  Definition::visit_parameters([&](const Parameter& parameter) { list[count++] = parameter; });
  return list;
}

}  // namespace moe_mamba::inline v0_2
