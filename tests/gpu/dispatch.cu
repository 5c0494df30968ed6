#include "gpu/operations.cuh"
#include "moe_mamba/cuda/dispatch.cuh"
#include "moe_mamba/reference/dispatch.hpp"

using namespace moe_mamba;

namespace {

struct Size {
  Index tokens, top_k, experts, capacity;
  bool one;  // all tokens to the same experts

  std::string name() const {
    return std::to_string(tokens) + " tokens, " + std::to_string(top_k) + " of " + std::to_string(experts) + ", " +
           std::to_string(capacity) + (one ? ", to one" : "");
  }
  std::vector<Index> draw() const {
    Random random(Seed{5});
    std::vector<Index> chosen;
    for (Index t = 0; t < tokens; ++t) {
      // Expert 2 gets no token if there are others.
      const auto first = one ? experts - 1 : static_cast<Index>(random.below(static_cast<std::uint64_t>(experts)));
      for (Index k = 0; k < top_k; ++k) {
        const Index e = (first + k) % experts;
        chosen.push_back(e == 2 && top_k == 1 && experts > 3 ? 3 : e);
      }
    }
    return chosen;
  }
};

const std::vector<Size> sizes = {{0, 1, 4, 9, false},      {1, 1, 1, 1, false},          {31, 1, 8, 31, false},
                                 {32, 2, 8, 32, false},    {33, 3, 5, 33, false},        {127, 1, 8, 10, false},
                                 {128, 4, 4, 128, false},  {129, 1, 16, 129, true},      {130, 2, 8, 0, false},
                                 {1031, 2, 128, 7, false}, {1031, 2, 3000, 1031, false}, {50021, 2, 8, 50021, false},
                                 {20011, 1, 33, 300, true}};

template <class C>
void check_dispatch(test::Report& report) {
  for (const Size& size : sizes) {
    const Index tokens = size.tokens, top_k = size.top_k, assignments = tokens * top_k;
    if (assignments > 40000 && sizeof(C) == 8) continue;
    const auto experts = size.draw();
    const std::vector<Index> unset(static_cast<std::size_t>(assignments), -7);
    const auto group = [&](auto& device, const Index* chosen, Index* slots, Index* source, Index* offsets,
                           double* dropped) {
      group_tokens(device, GroupTokens{.tokens = tokens,
                                       .top_k = top_k,
                                       .expert_count = size.experts,
                                       .capacity = size.capacity,
                                       .experts = chosen,
                                       .slots = slots,
                                       .source = source,
                                       .offsets = offsets,
                                       .dropped = dropped});
    };
    report.check(
        "group " + size.name(), 1e-12,
        std::make_tuple(experts, unset, unset, std::vector<Index>(static_cast<std::size_t>(size.experts) + 1, -7),
                        test::poison<double>(1)),
        group);

    auto slots = unset, source = unset;
    std::vector<Index> offsets(static_cast<std::size_t>(size.experts) + 1);
    double dropped = 0;
    reference::Device plain;
    group(plain, experts.data(), slots.data(), source.data(), offsets.data(), &dropped);
    for (const Index width : {1, 33, 128}) {
      if (assignments > 40000 && width > 33) continue;
      const double bound = (4 + std::sqrt(double(width))) * test::rounding<C>;
      report.check(
          "gather " + size.name(), 1e-12,
          std::make_tuple(offsets, source, test::uniform<C>(tokens * width, 1), test::poison<C>(assignments * width)),
          [&](auto& device, const Index* ends, const Index* from, auto* x, auto* y) {
            gather_rows(device, {ends, size.experts}, matrix(x, tokens, width), from, matrix(y, assignments, width));
          });
      for (const bool gated : {false, true}) {
        report.check("combine " + size.name(), bound,
                     std::make_tuple(slots, test::uniform<C>(assignments * width, 2),
                                     test::uniform<compute_t<C>>(assignments, 3), test::uniform<C>(tokens * width, 4),
                                     test::poison<C>(tokens * width)),
                     [&](auto& device, const Index* places, auto* y, auto* gates, auto* sum, auto* out) {
                       const auto* factors = gated ? gates : nullptr;
                       combine_rows(device, matrix(y, assignments, width), places, top_k, factors,
                                    matrix(sum, tokens, width), Into::add);
                       combine_rows(device, matrix(y, assignments, width), places, top_k, factors,
                                    matrix(out, tokens, width), Into::assign);
                     });
        report.check("combine backward " + size.name(), bound,
                     std::make_tuple(slots, test::uniform<C>(assignments * width, 2),
                                     test::uniform<compute_t<C>>(assignments, 3), test::uniform<C>(tokens * width, 4),
                                     test::poison<C>(assignments * width), test::poison<compute_t<C>>(assignments)),
                     [&](auto& device, const Index* places, auto* y, auto* gates, auto* dout, auto* dy, auto* dgates) {
                       combine_rows_backward(device, matrix(y, assignments, width), places, top_k,
                                             gated ? gates : nullptr, matrix(dout, tokens, width),
                                             matrix(dy, assignments, width), gated ? dgates : nullptr);
                     });
      }
    }
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("dispatch float");
    check_dispatch<float>(report);
    report.group("dispatch bfloat16");
    check_dispatch<bfloat16>(report);
    report.group("dispatch double");
    check_dispatch<double>(report);
  });
}
