// The systems of the comparison at every size: published parameter counts, and budgets of active parameters.
#include "paper/published.hpp"
#include "paper/systems.hpp"
#include "support/catch.hpp"

using namespace paper;

namespace {

/// At most the active parameters of plain Mamba, and at least 95 % of them.
template <class Size, class Definition>
constexpr bool is_within =
    cost<Definition>.active_parameters <= Size::budget && 20 * cost<Definition>.active_parameters >= 19 * Size::budget;

template <class Size, class... Families>
constexpr bool are_within = (is_within<Size, Within<Families, Size::budget>> && ...);

/// Experts inside Mamba, whose inner width is even.
template <class Size, class... Families>
constexpr bool are_within_inside = (is_within<Size, Within<Families, Size::budget, 2>> && ...);

template <class Size>
constexpr bool keeps_budgets() {
  static_assert(are_within<Size, MoeMamba<Size, 1>, MoeMamba<Size, 2>, MoeMamba<Size, 32>, MoeMamba<Size, 128>>);
  static_assert(are_within<Size, MambaMlp<Size>, ParallelMoeMamba<Size, 32>>);
  static_assert(are_within<Size, Transformer<Size, 128>, TransformerMoe<Size, 128, 32>>);
  static_assert(are_within<Size, MambaShare<Size, 2 * Size::width / 3, 19>, MambaShare<Size, 8 * Size::width / 3, 48>>);
  static_assert(are_within_inside<Size, RoutedMamba<Size, false, InputExperts<24>>,
                                  RoutedMamba<Size, true, InputExperts<24>, OutputExperts<24>>,
                                  RoutedMamba<Size, false, InputExperts<8>, GateExperts<8>, OutputExperts<8>>>);
  static_assert(are_within_inside<Size, InnerMoe<Size, false, GateExperts<24>>, InnerMoe<Size, true, OutputExperts<48>>,
                                  InnerMoe<Size, true, InputExperts<16>, GateExperts<16>, OutputExperts<16>>>);
  static_assert(cost<TotalControl<Size, 4>>.parameters <= Size::budget);
  static_assert(10 * cost<TotalControl<Size, 4>>.parameters >= 9 * Size::budget);
  return true;
}

static_assert(keeps_budgets<Size<24, 2>>() && keeps_budgets<Size<48, 2>>());
static_assert(keeps_budgets<Size<64, 8>>() && keeps_budgets<Size<128, 8>>() && keeps_budgets<Size<256, 8>>());

}  // namespace

TEST_CASE("the free width makes the best use of a budget") {
  using Small = Size<24, 2>;
  using Family = MoeMamba<Small, 32>;
  constexpr Index width = widest<Family>(Small::budget);
  CHECK(cost<Family::With<width>>.active_parameters <= Small::budget);
  CHECK(cost<Family::With<width + 8>>.active_parameters > Small::budget);
  CHECK(widest<Family, 1>(cost<Family::With<77>>.active_parameters) == 77);
  CHECK(widest<Family, 1>(cost<Family::With<77>>.active_parameters - 1) == 76);
  CHECK(widest<Family, 1>(cost<Family::With<9>>.active_parameters) == 9);
}
