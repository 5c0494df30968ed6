#pragma once

#include <string>

#include "moe_mamba/language/composition.hpp"
#include "moe_mamba/language/parallel.hpp"
#include "moe_mamba/language/type_name.hpp"

/// Finds layers that do not support packed sequences.
namespace moe_mamba::inline v0_2::detail {

/// The spelling of the first layer without takes_packed among the items of a body of width W; "" if there is none.
template <int W>
struct LayerWithoutPacking {
  template <class... Items>
  static std::string among() {
    std::string name;
    ((name.empty() ? void(name = of(static_cast<const Items*>(nullptr))) : void()), ...);
    return name;
  }

 private:
  template <class Item>
  static std::string of(const Item*) {
    if constexpr (LayerDefinition<Item, W>) {
      if constexpr (!Item::template Layer<W>::takes_packed) return shown_name<Item>();
    }
    return "";
  }
  template <class First, class Second>
  static std::string of(const Parallel<First, Second>*) {
    return among<First, Second>();
  }
  template <class Norm, class Layer>
  static std::string of(const Residual<Norm, Layer>*) {
    return among<Layer>();
  }
  template <class... Items>
  static std::string of(const Sequence<Items...>*) {
    return among<Items...>();
  }
  template <int Times, class... Items>
  static std::string of(const Repeat<Times, Items...>*) {
    return among<Items...>();
  }
};

}  // namespace moe_mamba::inline v0_2::detail
