// A switch transformer (Fedus et al. 2021), without Mamba: attention alternating with top-1 experts of limited
// capacity.
#include <algorithm>
#include <cmath>
#include <vector>

#include "model/gradient_check.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "moe_mamba/train/windows.hpp"

using namespace moe_mamba;

namespace {

template <int W, class Mixture>
using SwitchTransformer =
    LanguageModel<Vocabulary<11>, Width<W>,
                  Repeat<2, Attention<Heads<2>, KeyValueHeads<1>, HeadWidth<4>, Context<32>>, Mixture>>;
using Small = SwitchTransformer<5, Moe<Experts<3>, Hidden<4>, Capacity<3, 4>, BalanceLoss<1, 5>, ZLoss<1, 10>>>;
using Trained = SwitchTransformer<8, Moe<Experts<4>, Hidden<12>, Capacity<5, 4>, ZLoss<1, 1000>>>;

}  // namespace

TEST_CASE("The gradient of a switch transformer agrees with finite differences", "[train]") {
  for (const Shape shape : {Shape{1, 1}, Shape{2, 5}}) test::check_model_gradient<Small>(shape);
}

TEST_CASE("A switch transformer learns a pattern and uses all of its experts", "[train]") {
  std::vector<unsigned char> text;
  for (int i = 0; i < 5000; ++i) text.push_back(static_cast<unsigned char>((i * i + i / 7) % 11));
  auto batches = windows(text, Length{32}, Batch{8}, Seed{5});
  Model<Trained> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 1e-2}, Cosine{.warmup = 10, .steps = 200});
  const double first = trainer.step(batches.next()).loss;
  double last = 0;
  for (int i = 0; i < 199; ++i) last = trainer.step(batches.next()).loss;
  CHECK(first == Approx(std::log(11.0)).epsilon(0.05));
  CHECK(last < 0.5 * first);
  int routers = 0;
  trainer.visit_routers([&](const RouterReport& report) {
    ++routers;
    // 256 tokens; each expert has a capacity of 80.
    CHECK(*std::min_element(report.load.begin(), report.load.end()) > 0);
  });
  CHECK(routers == 2);
}
