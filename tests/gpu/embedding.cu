#include "gpu/operations.cuh"
#include "moe_mamba/cuda/embedding.cuh"

using namespace moe_mamba;

namespace {

/// `count` tokens below `vocabulary`; every `often`-th is token 0 if `often` > 0.
std::vector<Token> draw_tokens(Index count, Index vocabulary, Index often) {
  Random random(Seed{11});
  std::vector<Token> tokens;
  for (Index t = 0; t < count; ++t) {
    const auto token = static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary)));
    tokens.push_back(often > 0 && t % often != 0 ? 0 : token);
  }
  return tokens;
}

template <class C, class S>
void check_embedding(test::Report& report) {
  struct Size {
    Index tokens, vocabulary, width, often;
  };
  for (const Size size : {Size{0, 5, 4, 0},
                          {1, 1, 1, 0},
                          {31, 2, 33, 0},
                          {127, 257, 7, 0},
                          {128, 1, 5, 0},
                          {129, 300, 129, 5},
                          {1031, 70001, 64, 0},
                          {5003, 256, 100, 2},
                          {20000, 100000, 3, 100},
                          {(1 << 18) + 300, 1000, 2, 3}}) {
    const std::string name = std::to_string(size.tokens) + " of " + std::to_string(size.vocabulary);
    const auto tokens = draw_tokens(size.tokens, size.vocabulary, size.often);
    report.check("embed " + name, 1e-12,
                 std::make_tuple(tokens, test::uniform<S>(size.vocabulary * size.width, 1),
                                 test::poison<C>(size.tokens * size.width)),
                 [&](auto& device, const Token* ids, auto* weight, auto* x) {
                   embed(device, ids, test::fixed(weight, size.vocabulary, size.width),
                         matrix(x, size.tokens, size.width));
                 });
    // Up to all tokens are summed in one row.
    report.check("embed backward " + name, (2 + std::sqrt(double(size.tokens))) * test::rounding<C>,
                 std::make_tuple(tokens, test::uniform<C>(size.tokens * size.width, 2),
                                 test::uniform<C>(size.vocabulary * size.width, 3)),
                 [&](auto& device, const Token* ids, auto* dx, auto* dweight) {
                   embed_backward(device, ids, matrix(dx, size.tokens, size.width),
                                  matrix(dweight, size.vocabulary, size.width));
                 });
  }
}

}  // namespace

int main() {
  return test::run_checks([](test::Report& report) {
    report.group("embedding float");
    check_embedding<float, float>(report);
    report.group("embedding float, bfloat16 parameters");
    check_embedding<float, bfloat16>(report);
    report.group("embedding double");
    check_embedding<double, double>(report);
  });
}
