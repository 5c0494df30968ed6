#include "moe_mamba/cpu/embedding.hpp"

#include <vector>

#include "moe_mamba/reference/embedding.hpp"
#include "support/catch.hpp"
#include "support/data.hpp"

using namespace moe_mamba;

namespace {

template <class S, class C = compute_t<S>>
struct Embedding {
  Index tokens, vocabulary, width;
  std::vector<Token> ids;
  std::vector<S> weight;
  std::vector<C> x, dx, dweight;

  Embedding(Index tokens_, Index vocabulary_, Index width_) : tokens(tokens_), vocabulary(vocabulary_), width(width_) {
    Random random(Seed{9});
    for (Index t = 0; t < tokens; ++t) {
      ids.push_back(static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary))));
    }
    weight = test::uniform<S>(vocabulary * width, 1);
    x = test::poison<C>(tokens * width);
    dx = test::uniform<C>(tokens * width, 2);
    dweight = test::uniform<C>(vocabulary * width, 3);
  }

  Embedding<double> in_double() const {
    Embedding<double> result(tokens, vocabulary, width);
    result.weight = test::converted<double>(weight);
    result.dx = test::converted<double>(dx);
    result.dweight = test::converted<double>(dweight);
    return result;
  }

  template <class Device>
  void run(Device& device) {
    const MatrixView<const S> rows = matrix<const S>(weight.data(), vocabulary, width);
    embed(device, ids.data(), rows, matrix(x.data(), tokens, width));
    embed_backward(device, ids.data(), matrix(dx.data(), tokens, width), matrix(dweight.data(), vocabulary, width));
  }
};

}  // namespace

TEMPLATE_TEST_CASE("embedding and its gradient agree with the reference", "[cpu][embedding]", float, double, bfloat16) {
  using C = compute_t<TestType>;
  cpu::Device device;
  reference::Device plain;
  for (const Index tokens : {0, 1, 2, 300}) {
    for (const Index width : {1, 7, 8, 16, 33, 100}) {
      Embedding<TestType> actual(tokens, 11, width);
      auto expected = actual.in_double();
      actual.run(device);
      expected.run(plain);
      CAPTURE(tokens, width);
      CHECK(actual.x == test::converted<C>(expected.x));  // the conversion is exact
      // About thirty additions to each element.
      CHECK(test::relative_error(actual.dweight, expected.dweight) <= (sizeof(C) == 8 ? 1e-14 : 2e-6));
    }
  }
}

TEST_CASE("the gradient of an embedding counts a token as often as it occurs", "[cpu][embedding]") {
  cpu::Device device;
  const std::vector<Token> ids = {2, 0, 2, 2};
  const std::vector<float> dx = {1, 10, 2, 20, 3, 30, 4, 40};
  std::vector<float> dweight(6, 0.5f);
  embed_backward(device, ids.data(), matrix(dx.data(), 4, 2), matrix(dweight.data(), 3, 2));
  CHECK(dweight == std::vector<float>{2.5f, 20.5f, 0.5f, 0.5f, 8.5f, 80.5f});
}

TEST_CASE("embedding gives the same bits with 1, 2 and 3 threads", "[cpu][embedding]") {
  cpu::Device one;
  for (const Index width : {5, 16, 100, 333}) {
    Embedding<float> expected(2000, 7, width);
    expected.run(one);
    for (const int threads : {2, 3}) {
      cpu::Device many(Threads{threads});
      Embedding<float> actual(2000, 7, width);
      actual.run(many);
      CHECK(actual.x == expected.x);
      CHECK(actual.dweight == expected.dweight);
    }
  }
}
