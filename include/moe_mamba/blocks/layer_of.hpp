#pragma once

#include <algorithm>
#include <cstddef>

#include "moe_mamba/blocks/layer.hpp"

namespace moe_mamba::inline v0_2 {

namespace detail {

/// A norm works on one row at a time and is not counted in FLOPs.
template <class Block>
inline constexpr bool is_counted = requires {
  Block::flops_per_token;
};

template <class Block>
consteval double flops_of() {
  if constexpr (is_counted<Block>) return Block::flops_per_token;
  return 0;
}

template <class Block>
consteval bool block_takes_packed() {
  if constexpr (is_counted<Block>) return Block::takes_packed;
  return true;
}

}  // namespace detail

/// The sizes and counts of a layer made of these blocks (or layers, or norms): the sums of theirs, and the maximum of
/// their scratch per thread, if the layer has no other operations. Their states and reports are stored in this order: a
/// block finds its own with run.after<the blocks before it>().
template <class... Blocks>
struct LayerOf : LayerDefaults {
  static constexpr Index active_parameters = (Index{0} + ... + Blocks::active_parameters);
  static constexpr double flops_per_token = (0.0 + ... + detail::flops_of<Blocks>());
  static constexpr Index state_size = (Index{0} + ... + Blocks::state_size);
  static constexpr bool takes_packed = (... && detail::block_takes_packed<Blocks>());
  static constexpr Index report_size = (Index{0} + ... + Blocks::report_size);
  static constexpr Index auxiliary_count = (Index{0} + ... + Blocks::auxiliary_count);

  template <class C>
  static std::size_t thread_scratch(const auto& device, [[maybe_unused]] Shape shape, [[maybe_unused]] bool training) {
    return std::max({std::size_t{0}, moe_mamba::thread_scratch<Blocks, C>(device, shape, training)...});
  }

  static constexpr double auxiliary_loss([[maybe_unused]] const double* report) {
    double loss = 0;
    ((loss += Blocks::auxiliary_loss(report), report += Blocks::report_size), ...);
    return loss;
  }

  template <class Visit>
  static void visit_routers([[maybe_unused]] const Visit& visit, [[maybe_unused]] const double* report) {
    ((Blocks::visit_routers(visit, report), report += Blocks::report_size), ...);
  }
};

}  // namespace moe_mamba::inline v0_2
