#include "gpu/operations.cuh"
#include "moe_mamba/cuda/cross_entropy.cuh"
#include "moe_mamba/reference/cross_entropy.hpp"

using namespace moe_mamba;

namespace {

struct Size {
  Index tokens, vocabulary, width;
};

template <class C, class S>
void check_cross_entropy(test::Report& report, double bound) {
  for (const Size size : {Size{0, 5, 3},
                          {1, 2, 1},
                          {2, 9, 4},
                          {31, 257, 8},
                          {33, 1023, 40},
                          {129, 128, 33},
                          {1031, 33, 16},
                          {65, 50021, 8},
                          {40, 2051, 72}}) {
    const Index tokens = size.tokens, vocabulary = size.vocabulary, width = size.width;
    Random random(Seed{4});
    std::vector<Token> targets;
    for (Index t = 0; t < tokens; ++t) {
      const auto target = static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary)));
      targets.push_back(t % 3 == 1 ? masked_target : target);
    }
    cuda::Device sizes;
    cuda::Memory device_scratch(head_cross_entropy_scratch<C>(sizes, tokens, vocabulary, width) + 64);
    std::vector<double> host_scratch(static_cast<std::size_t>(vocabulary) + 16);
    for (const bool gradients : {false, true}) {
      // Activations that are exact in bfloat16, so that the bound covers sums and exponentials alone; gradients of
      // logits are rounded to it.
      report.check(
          std::to_string(tokens) + " x " + std::to_string(vocabulary) + " x " + std::to_string(width),
          gradients ? bound : 80 * test::rounding<C>,
          std::make_tuple(test::converted<C>(test::uniform<bfloat16>(tokens * width, 1)),
                          test::uniform<S>(vocabulary * width, 2), targets, test::poison<C>(tokens * width),
                          test::uniform<compute_t<C>>(vocabulary * width, 3), test::poison<double>(2)),
          [&](auto& device, const auto* x, const auto* weight, const Token* goals, auto* dx, auto* dweight,
              double* totals) {
            using Compute = std::remove_pointer_t<decltype(dx)>;
            using Storage = std::remove_const_t<std::remove_pointer_t<decltype(weight)>>;
            constexpr bool on_host = std::is_same_v<decltype(device), reference::Device&>;
            auto* scratch = on_host ? reinterpret_cast<std::byte*>(host_scratch.data()) : device_scratch.data();
            head_cross_entropy(device,
                               HeadCrossEntropy<Compute, Storage>{.x = test::fixed(x, tokens, width),
                                                                  .weight = test::fixed(weight, vocabulary, width),
                                                                  .targets = goals,
                                                                  .dx = matrix(gradients ? dx : nullptr, tokens, width),
                                                                  .dweight = matrix(dweight, vocabulary, width),
                                                                  .totals = totals,
                                                                  .scratch = Arena(scratch)});
          });
    }
  }
}

/// Memory for a batch must be enough for any smaller one.
void check_scratch(test::Report& report) {
  const cuda::Device device;
  for (const Index vocabulary : {257, 50257}) {
    std::size_t before = 0;
    bool grows = true;
    for (Index tokens = 0; tokens < 20000; tokens += 7) {
      const std::size_t bytes = head_cross_entropy_scratch<bfloat16>(device, tokens, vocabulary, 64);
      grows = grows && bytes >= before;
      before = bytes;
    }
    report.expect("scratch grows with the tokens", grows);
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("cross-entropy scratch");
    check_scratch(report);
    report.group("cross-entropy float");
    check_cross_entropy<float, float>(report, 60 * test::rounding<float>);
    report.group("cross-entropy bfloat16");
    check_cross_entropy<bfloat16, bfloat16>(report, 2 * test::rounding<float> * (1 << 16));
    report.group("cross-entropy double");
    check_cross_entropy<double, double>(report, 300 * test::rounding<double>);
  });
}
