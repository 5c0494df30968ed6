#include "moe_mamba/cpu/cross_entropy.hpp"

#include <algorithm>
#include <vector>

#include "moe_mamba/reference/cross_entropy.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

struct Size {
  Index tokens, vocabulary, width;
};

template <class S, class C = compute_t<S>>
struct Head {
  Size size;
  std::vector<C> x, dx, dweight;
  std::vector<S> weight;
  std::vector<Token> targets;

  /// Every third target is masked.
  explicit Head(Size size_, double range = 1) : size(size_) {
    x = test::uniform<C>(size.tokens * size.width, 1, -range, range);
    weight = test::uniform<S>(size.vocabulary * size.width, 2);
    dx = test::poison<C>(size.tokens * size.width);
    dweight = test::uniform<C>(size.vocabulary * size.width, 3);
    Random random(Seed{4});
    for (Index t = 0; t < size.tokens; ++t) {
      const auto target = static_cast<Token>(random.below(static_cast<std::uint64_t>(size.vocabulary)));
      targets.push_back(t % 3 == 1 ? masked_target : target);
    }
  }

  Head<double> in_double() const {
    Head<double> result(size);
    result.x = test::converted<double>(x);
    result.weight = test::converted<double>(weight);
    result.dweight = test::converted<double>(dweight);
    result.targets = targets;
    return result;
  }

  Index unmasked() const { return size.tokens - std::count(targets.begin(), targets.end(), masked_target); }

  /// The sum of the losses, in exactly as much scratch memory as the operation needs.
  template <class Device>
  double run(Device& device, bool gradients = true) {
    struct alignas(Arena::alignment) Line {
      std::byte bytes[Arena::alignment];
    };
    const std::size_t bytes = head_cross_entropy_scratch<C>(device, size.tokens, size.vocabulary, size.width);
    std::vector<Line> scratch(bytes / sizeof(Line) + 1);
    for (auto& byte : scratch.back().bytes) byte = std::byte{0x5a};
    const MatrixView<C> dx_view = gradients ? matrix(dx.data(), size.tokens, size.width) : MatrixView<C>{};
    double totals[] = {NAN, NAN};
    head_cross_entropy(
        device, HeadCrossEntropy<C, S>{matrix<const C>(x.data(), size.tokens, size.width),
                                       matrix<const S>(weight.data(), size.vocabulary, size.width), targets.data(),
                                       dx_view, matrix(dweight.data(), size.vocabulary, size.width), totals,
                                       Arena(scratch.front().bytes)});
    for (const auto byte : scratch.back().bytes) CHECK(byte == std::byte{0x5a});
    CHECK(totals[1] == static_cast<double>(unmasked()));
    return totals[0];
  }
};

// The last ones take more than one block of rows, in float and in double, with a last block of one row or a few.
const std::vector<Size> sizes = {{0, 5, 3},    {1, 1, 1},      {1, 2, 1},      {2, 9, 4},    {3, 7, 5},
                                 {64, 257, 8}, {65, 1023, 33}, {65, 20011, 3}, {4100, 5, 2}, {130, 50021, 2}};

}  // namespace

TEMPLATE_TEST_CASE("cross-entropy and its gradients agree with the reference", "[cpu][cross_entropy]", float, double,
                   bfloat16) {
  cpu::Device device;
  reference::Device plain;
  // Logits are of size 1 to 10 and carry a relative error of 6e-8, their exponential a little more; sums over the
  // vocabulary continue in double, those over tokens are a matrix product's.
  const double tolerance = sizeof(compute_t<TestType>) == 8 ? 2e-14 : 2e-6;
  for (const Size size : sizes) {
    CAPTURE(size.tokens, size.vocabulary, size.width);
    Head<TestType> actual(size);
    auto expected = actual.in_double();
    const double loss = actual.run(device), expected_loss = expected.run(plain);
    CHECK(std::abs(loss - expected_loss) <= tolerance * std::max(1.0, expected_loss));
    if (size.vocabulary > 1) {
      CHECK(test::relative_error(actual.dx, expected.dx) <= tolerance);
    } else {
      for (const auto gradient : actual.dx) CHECK(gradient == 0);
    }
    CHECK(test::relative_error(actual.dweight, expected.dweight) <= tolerance);
  }
}

TEST_CASE("gradients of the reference cross-entropy agree with finite differences", "[reference][cross_entropy]") {
  reference::Device device;
  Head<double> head({4, 6, 3});
  std::fill(head.dweight.begin(), head.dweight.end(), 0.0);
  head.run(device);
  const auto loss = [&] { return head.run(device, false) / static_cast<double>(head.unmasked()); };
  std::vector<double> dx, dweight;
  for (auto& element : head.x) dx.push_back(test::finite_difference(element, 1e-2, loss));
  for (auto& element : head.weight) dweight.push_back(test::finite_difference(element, 1e-2, loss));
  CHECK(test::relative_error(head.dx, dx) < 1e-7);
  CHECK(test::relative_error(head.dweight, dweight) < 1e-7);
}

TEST_CASE("masked targets do not contribute to the loss", "[cpu][cross_entropy]") {
  cpu::Device device;
  Head<float> head({7, 50, 8});
  const double loss = head.run(device);
  for (std::size_t t = 0; t < 7; ++t) {
    for (std::size_t i = 0; i < 8; ++i) CHECK((head.dx[t * 8 + i] == 0) == (head.targets[t] == masked_target));
  }
  // The same without the masked rows.
  Head<float> shorter({5, 50, 8});
  for (std::size_t t = 0, kept = 0; t < 7; ++t) {
    if (head.targets[t] == masked_target) continue;
    shorter.targets[kept] = head.targets[t];
    std::copy_n(head.x.data() + t * 8, 8, shorter.x.data() + kept++ * 8);
  }
  CHECK(std::abs(shorter.run(device) - loss) <= 1e-6 * loss);
  CHECK(test::relative_error(shorter.dweight, head.dweight) <= 1e-6);

  std::fill(head.targets.begin(), head.targets.end(), masked_target);
  const auto before = head.dweight;
  CHECK(head.run(device) == 0);
  CHECK(head.dx == std::vector<float>(56, 0.0f));
  CHECK(head.dweight == before);
}

TEST_CASE("without gradients the loss is the same and nothing is written", "[cpu][cross_entropy]") {
  cpu::Device device;
  Head<float> head({70, 3001, 16}), evaluated = head;
  const auto before = head.dweight;
  CHECK(evaluated.run(device, false) == head.run(device));
  CHECK(evaluated.dweight == before);
}

TEST_CASE("the loss has its closed forms", "[cpu][cross_entropy]") {
  cpu::Device device;
  Head<float> head({6, 1000, 4});
  SECTION("even logits: log V for each target") {
    std::fill(head.weight.begin(), head.weight.end(), 0.0f);
    CHECK(std::abs(head.run(device) - 4 * std::log(1000.0)) < 1e-5);
  }
  SECTION("logits far beyond the exponential's range") {
    std::fill(head.weight.begin(), head.weight.end(), 0.0f);
    std::fill(head.x.begin(), head.x.end(), 100.0f);
    for (std::size_t i = 0; i < 4; ++i) {
      head.weight[4 * 7 + i] = 25.0f;    // a logit of 10000
      head.weight[4 * 8 + i] = -100.0f;  // and one of -40000
    }
    head.targets = {7, 7, 0, 8, masked_target, 999};
    CHECK(std::abs(head.run(device) - (10000 + 50000 + 10000)) < 0.1);
    for (const float gradient : head.dx) CHECK(std::isfinite(gradient));
  }
}

TEST_CASE("a NaN or infinity in the head reaches the loss", "[cpu][cross_entropy]") {
  cpu::Device device;
  for (const float bad : {NAN, INFINITY}) {
    for (const std::size_t v : {0u, 5u, 36u}) {
      Head<float> weight({3, 37, 4});
      weight.weight[v * 4] = bad;
      std::fill(weight.x.begin(), weight.x.end(), 0.5f);
      CHECK(std::isnan(weight.run(device)));
      CHECK(std::isnan(weight.dx[0]));
    }
    Head<float> x({3, 37, 4});
    x.x[9] = bad;
    CHECK(std::isnan(x.run(device)));
    CHECK(std::isnan(x.dx[8]));
    CHECK_FALSE(std::isnan(x.dx[0]));
  }
}

TEST_CASE("cross-entropy gives the same bits with 1, 2 and 3 threads", "[cpu][cross_entropy]") {
  cpu::Device one;
  for (const Size size : {Size{4500, 7, 5}, Size{150, 30011, 24}}) {
    Head<float> expected(size);
    const double loss = expected.run(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      Head<float> actual(size);
      CHECK(actual.run(many) == loss);
      CHECK(actual.dx == expected.dx);
      CHECK(actual.dweight == expected.dweight);
    }
  }
}
