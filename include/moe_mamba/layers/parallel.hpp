#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include "moe_mamba/layers/layer.hpp"
#include "moe_mamba/ops/elementwise.hpp"

namespace moe_mamba {

/// Two layers that read the same input; their outputs are added ("Parallel MoE-Mamba", Pióro et al. 2024, section 4.4).
template <int D, class First, class Second>
struct ParallelLayer {
  static constexpr std::size_t first_count = First::parameters.size(), second_count = Second::parameters.size();
  static constexpr auto parameters = [] {
    std::array<Parameter, first_count + second_count> all{};
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool is_first = i < first_count;
      const Parameter& parameter = is_first ? First::parameters[i] : Second::parameters[i - first_count];
      all[i] = parameter;
      all[i].name = ParameterName(is_first ? "0." : "1.").append(parameter.name.view());
    }
    return lay_out(all);
  }();
  static constexpr Index active_parameters = First::active_parameters + Second::active_parameters;
  static constexpr double flops_per_token = First::flops_per_token + Second::flops_per_token;
  static constexpr Index state_size = First::state_size + Second::state_size;
  static constexpr bool takes_packed = First::takes_packed && Second::takes_packed;
  static constexpr Index report_size = First::report_size + Second::report_size;

  static constexpr Index auxiliary_count = First::auxiliary_count + Second::auxiliary_count;

  static constexpr double auxiliary_loss(const double* report) {
    return First::auxiliary_loss(report) + Second::auxiliary_loss(report + First::report_size);
  }

  template <class Visit>
  static void visit_routers(const Visit& visit, const double* report) {
    First::visit_routers(visit, report);
    Second::visit_routers(visit, report + First::report_size);
  }

  template <class C>
  struct Saved {
    constexpr Saved(Arena& arena, Shape shape) {
      arena = arena.advanced(tape_bytes<First, C>(shape) + tape_bytes<Second, C>(shape));
    }
  };

  template <class C, class Device>
  static std::size_t scratch_bytes(Device& device, Shape shape, bool training) {
    return bytes_of<Scratch<C>>(shape) + std::max(First::template scratch_bytes<C>(device, shape, training),
                                                  Second::template scratch_bytes<C>(device, shape, training));
  }

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, MatrixView<const C> x, MatrixView<C> y) {
    const Scratch<C> scratch(run.scratch, run.shape);
    First::forward(run, x, y);
    Second::forward(run.advanced(first_extent<C>(run.shape)), x, scratch.rows);
    add(run.device, scratch.rows, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const Scratch<C> scratch(run.scratch, run.shape);
    First::backward(run, x, dy, dx);
    Second::backward(run.advanced(first_extent<C>(run.shape)), x, dy, scratch.rows);
    add(run.device, scratch.rows, dx);
  }

 private:
  template <class C>
  struct Scratch {
    constexpr Scratch(Arena& arena, Shape shape)
        : rows(matrix(arena.take<C>(shape.tokens() * D), shape.tokens(), Index{D})) {}
    MatrixView<C> rows;  // (T, D)
  };

  template <class C>
  static constexpr Extent first_extent(Shape shape) {
    return {parameters_of<First>, First::state_size, First::report_size, tape_bytes<First, C>(shape)};
  }
};

namespace detail {

template <class First, class Second, int W>
struct ParallelTakes {
  static_assert(LayerDefinition<First, W> && LayerDefinition<Second, W>,
                "Parallel<A, B> takes two layers (Mamba, Attention, Moe, Mlp, Parallel or your own), not norms, "
                "options or groups: ParallelTakes<A, B, width>");
};

template <class First, class Second, int W>
struct ParallelOf {
  static_assert((check<ParallelTakes<First, Second, W>>(), true));
  using type = NoLayer;
};

template <class First, class Second, int W>
requires(LayerDefinition<First, W>&& LayerDefinition<Second, W>) struct ParallelOf<First, Second, W> {
  using type = ParallelLayer<W, typename CheckedLayer<typename First::template Layer<W>>::type,
                             typename CheckedLayer<typename Second::template Layer<W>>::type>;
};

}  // namespace detail

/// Two layers side by side on the same normed input.
template <class First, class Second>
struct Parallel {
  template <int W>
  using Layer = typename detail::ParallelOf<First, Second, W>::type;
};

}  // namespace moe_mamba
