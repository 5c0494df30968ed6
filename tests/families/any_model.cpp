// One of several definitions, chosen by a checkpoint's config.
#include "moe_mamba/families/any_model.hpp"

#include <type_traits>

#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

using Small = test::SmallMamba;
using Deep = test::DeepMamba;
using Other = test::ShallowMamba;

/// A folder with a checkpoint in it.
template <class Definition>
struct Written : test::Folder {
  explicit Written(std::uint64_t seed) { save(Model<Definition>(Seed{seed}), Pretrained{*this / "model"}); }
};

}  // namespace

TEST_CASE("A checkpoint is opened as the definition that matches it", "[families]") {
  using Any = AnyModel<float, Cpu, Small, Deep, Other>;
  const Any small(Pretrained{test::fixture_folder("mamba")});
  CHECK(small.index() == 0);
  const auto expected = load<Small>(Pretrained{test::fixture_folder("mamba")});
  const bool same = small.visit([&](const auto& model) {
    if constexpr (std::is_same_v<decltype(model), const Model<Small>&>) {
      return std::equal(model.parameters().begin(), model.parameters().end(), expected.parameters().begin());
    } else {
      return false;
    }
  });
  CHECK(same);

  const Written<Deep> deep(5);
  const Written<Other> other(6);
  CHECK(Any(Pretrained{deep / "model"}).index() == 1);
  CHECK(Any(Pretrained{other / "model"}).index() == 2);
}

TEST_CASE("A type-erased decoder generates the same tokens as that of the known model", "[families]") {
  const Written<Deep> folder(5);
  const AnyModel<float, Cpu, Other, Deep> any(Pretrained{folder / "model"});
  const auto known = load<Deep>(Pretrained{folder / "model"});
  const auto decoder = any.decoder();
  Decoder plain(known);
  CHECK(decoder->vocabulary() == 13);
  const std::vector<Token> prompt{1, 2, 3};
  std::vector<Token> written, expected;
  decoder->generate(prompt, TopP{0.9f}, Seed{7}, 9, [&](Token token) {
    written.push_back(token);
    return written.size() < 6;
  });
  for (const Token token : plain.generate(prompt, TopP{0.9f}, Seed{7}, 6)) expected.push_back(token);
  CHECK(written == expected);
  decoder->reset();
  plain.reset();
  const auto a = decoder->prefill(prompt), b = plain.prefill(prompt);
  CHECK(std::equal(a.begin(), a.end(), b.begin()));
  const auto c = decoder->step(4), d = plain.step(4);
  CHECK(std::equal(c.begin(), c.end(), d.begin()));
  CHECK(decoder->logits().data() == c.data());
  CHECK_THROWS_AS(decoder->step(13), std::out_of_range);
}

TEST_CASE("A checkpoint that matches none of the definitions is refused with the one that would", "[families]") {
  const Written<Deep> folder(5);
  using Any = AnyModel<float, Cpu, Other, Small>;
  CHECK_THROWS_WITH(Any(Pretrained{folder / "model"}),
                    Contains("Vocabulary<13>") && Contains("number 0") && Contains("number 1"));
}
