#include "moe_mamba/language/spelling.hpp"

#include <algorithm>
#include <string>

#include "support/catch.hpp"

using namespace moe_mamba;

struct Silu : moe_mamba::Silu {};  // does not hide the library's

namespace other {
struct Swish : moe_mamba::Silu {};
inline namespace __1 {  // as the standard libraries have
struct Versioned : Swish {};
}  // namespace __1
template <char C, class T = moe_mamba::Relu>
struct Lettered : Swish {};
}  // namespace other

namespace {

template <int N>
struct Bound {};
template <class Limit, bool Signed>
struct Gain {
  template <int W>
  using Layer = MlpLayer<W, 4, Relu>;
};
struct Swish : moe_mamba::Silu {};
struct Coarse {
  struct Scale : Gain<Bound<1>, true> {};
};
struct Fine {
  struct Scale : Gain<Bound<1>, true> {};
};
template <class Mode>
struct Family {
  struct Scale : Gain<Bound<1>, true> {};
};

template <class... Arguments>
using Net = LanguageModel<Vocabulary<11>, Width<32>, Arguments...>;

/// Arguments whose names omit something, with all compilers or only with clang.
template <class T>
struct Choice {
  template <int W>
  using Layer = MlpLayer<W, 4, Relu>;
};
struct Numbers {
  int all[12];
};
template <Numbers numbers>
struct Table : Choice<int> {
  static constexpr std::string_view spelling = numbers.all[11] == 0 ? "Table of 0" : "Table of others";
};

template <class... Arguments>
std::string body() {
  const std::string text = spelling<Net<Arguments...>>(), start = "LanguageModel<Vocabulary<11>, Width<32>, ";
  REQUIRE(text.starts_with(start));
  return text.substr(start.size(), text.size() - start.size() - 1);
}

}  // namespace

TEST_CASE("Definitions that mean the same are spelled the same", "[model]") {
  CHECK(body<Mamba<>>() == "Mamba<>");
  CHECK(body<Mamba<StepRank<2>, Expand<2>, State<16>, Convolution<4>, InnerNorm<NoNorm>>>() == "Mamba<>");
  CHECK(body<Mamba<Inner<64>>>() == "Mamba<>");
  CHECK(body<Mamba<Inner<96>>>() == "Mamba<Expand<3>>");
  CHECK(body<Mamba<Inner<65>>>() == "Mamba<Inner<65>>");
  CHECK(body<Mamba<SharedRouter, OutputExperts<4>, GateExperts<4>, InputExperts<4>>>() ==
        "Mamba<InputExperts<4>, GateExperts<4>, OutputExperts<4>>");
  CHECK(body<Mamba<Capacity<1>, SeparateRouters, Relu, Hidden<9>, OutputExperts<4>, GateExperts<2>>>() ==
        "Mamba<GateExperts<2>, OutputExperts<4>, Hidden<9>, SeparateRouters, Capacity<1, 1>>");
  CHECK(body<Mamba<RouterBias, Gelu, Hidden<9>, OutputExperts<4>, TopK<2>, TopKThenSoftmax, BalanceLoss<0>>>() ==
        "Mamba<OutputExperts<4>, TopK<2>, Hidden<9>, Gelu, TopKThenSoftmax, RouterBias>");
  CHECK(body<Mlp<Hidden<128>, Relu>>() == "Mlp<>");
  CHECK(body<Attention<Context<8>, Heads<4>, HeadWidth<8>, KeyValueHeads<4>, Rotary<10000>, RotaryWidth<8>>>() ==
        "Attention<Heads<4>, Context<8>>");
  CHECK(body<Moe<SoftmaxThenTopK, Experts<4>, TopK<1>, Hidden<128>, SharedExperts<0>, Relu>>() == "Moe<Experts<4>>");
  CHECK(body<Moe<Experts<4>, Capacity<10, 8>>>() == "Moe<Experts<4>, Capacity<5, 4>>");
  CHECK(body<Moe<Experts<4>, FloorCapacity<10, 8>>>() == "Moe<Experts<4>, FloorCapacity<5, 4>>");
  CHECK(body<Moe<Experts<4>, GateScale<7, 7>>>() == "Moe<Experts<4>>");
  CHECK(body<Moe<SelectionBias, GateScale<10, 4>, NormalisedGates, SigmoidThenTopK, TopK<2>, Experts<4>>>() ==
        "Moe<Experts<4>, TopK<2>, SigmoidThenTopK, NormalisedGates, GateScale<5, 2>, SelectionBias>");
  CHECK(body<PreNorm<RmsNorm<Epsilon<10, 1000000>>>, Mamba<>>() == "Mamba<>");
  CHECK(body<Residual<RmsNorm<>, Mamba<>>>() == "Mamba<>");
  CHECK(body<PreNorm<NoNorm>, Residual<RmsNorm<>, Mamba<>>>() == "Mamba<>");
  CHECK(body<Residual<NoNorm, Mamba<>>>() == "PreNorm<NoNorm>, Mamba<>");
  CHECK(body<Mamba<>, Mamba<>, Sequence<Mamba<>>, Repeat<2, Mamba<>>>() == "Repeat<5, Mamba<>>");
  CHECK(body<Repeat<2, Mamba<>, Mlp<>>, Mamba<>, Mlp<>>() == "Repeat<3, Mamba<>, Mlp<>>");
  CHECK(body<Repeat<2, Mamba<>>, Mlp<>>() == "Repeat<2, Mamba<>>, Mlp<>");
  CHECK(body<TiedHead, SumAuxiliaryLosses, Mamba<>>() == "Mamba<>");
  CHECK(spelling<LanguageModel<Mamba<>, Width<32>, Vocabulary<11>>>() == spelling<Net<Mamba<>>>());
}

TEST_CASE("Every option that changes what is computed changes the text", "[model]") {
  const std::string texts[] = {
      body<Mamba<>>(),
      body<Mamba<State<8>>>(),
      body<Mamba<Convolution<3>>>(),
      body<Mamba<Expand<1>>>(),
      body<Mamba<StepRank<3>>>(),
      body<Mamba<InnerNorm<RmsNorm<>>>>(),
      body<Mamba<InnerNorm<RmsNorm<NoGain>>>>(),
      body<Mamba<ProjectionBias>>(),
      body<Mamba<NoConvolutionBias>>(),
      body<Head, Mamba<>>(),
      body<FinalNorm<LayerNorm<>>, Mamba<>>(),
      body<FinalNorm<RmsNorm<Epsilon<1, 1000>>>, Mamba<>>(),
      body<PreNorm<LayerNorm<>>, Mamba<>>(),
      body<PreNorm<LayerNorm<Epsilon<1, 1000>>>, Mamba<>>(),
      body<Mamba<>, RmsNorm<>>(),
      body<RmsNorm<>, Mamba<>>(),
      body<Mamba<>, Residual<NoNorm, Mamba<>>>(),
      body<Mamba<InputExperts<4>>>(),
      body<Mamba<InputExperts<5>>>(),
      body<Mamba<GateExperts<4>>>(),
      body<Mamba<OutputExperts<4>>>(),
      body<Mamba<InputExperts<4>, GateExperts<4>>>(),
      body<Mamba<InputExperts<4>, SeparateRouters>>(),
      body<Mamba<InputExperts<4>, TopK<2>>>(),
      body<Mamba<InputExperts<4>, TopK<2>, TopKThenSoftmax>>(),
      body<Mamba<InputExperts<4>, SigmoidThenTopK>>(),
      body<Mamba<InputExperts<4>, RouterBias>>(),
      body<Mamba<InputExperts<4>, Capacity<1>>>(),
      body<Mamba<InputExperts<4>, Hidden<64>>>(),
      body<Mamba<InputExperts<4>, Hidden<64>, Gelu>>(),
      body<Mamba<InputExperts<4>, Inner<63>>>(),
      body<Mlp<>>(),
      body<Mlp<Hidden<64>>>(),
      body<Mlp<SwiGlu>>(),
      body<Mlp<GeGlu>>(),
      body<Mlp<Gelu>>(),
      body<Mlp<moe_mamba::Silu>>(),
      body<Mlp<::Silu>>(),
      body<Mlp<other::Swish>>(),
      body<Mlp<SquaredRelu>>(),
      body<Mlp<Swish>>(),
      body<Attention<Heads<4>, Context<8>>>(),
      body<Attention<Heads<4>, Context<9>>>(),
      body<Attention<Heads<8>, Context<8>>>(),
      body<Attention<Heads<4>, Context<8>, KeyValueHeads<2>>>(),
      body<Attention<Heads<4>, Context<8>, HeadWidth<16>>>(),
      body<Attention<Heads<4>, Context<8>, Rotary<20000>>>(),
      body<Attention<Heads<4>, Context<8>, RotaryWidth<4>>>(),
      body<Attention<Heads<4>, Context<8>, NoPositions>>(),
      body<Attention<Heads<4>, Context<8>, InputBiases>>(),
      body<Attention<Heads<4>, Context<8>, Biases>>(),
      body<Moe<Experts<4>>>(),
      body<Moe<Experts<5>>>(),
      body<Moe<Experts<4>, TopK<2>>>(),
      body<Moe<Experts<4>, TopK<2>, TopKThenSoftmax>>(),
      body<Moe<Experts<4>, SigmoidThenTopK>>(),
      body<Moe<Experts<4>, TopK<2>, SigmoidThenTopK>>(),
      body<Moe<Experts<4>, TopK<2>, SigmoidThenTopK, NormalisedGates>>(),
      body<Moe<Experts<4>, GateScale<2>>>(),
      body<Moe<Experts<4>, GateScale<5, 2>>>(),
      body<Moe<Experts<4>, RouterBias>>(),
      body<Moe<Experts<4>, SelectionBias>>(),
      body<Moe<Experts<4>, Hidden<64>>>(),
      body<Moe<Experts<4>, SharedExperts<1>>>(),
      body<Moe<Experts<4>, Capacity<1>>>(),
      body<Moe<Experts<4>, FloorCapacity<1>>>(),
      body<Moe<Experts<4>, FloorCapacity<5, 4>>>(),
      body<Moe<Experts<4>, Gelu>>(),
      body<Parallel<Mamba<>, Mlp<>>>(),
      body<Parallel<Mlp<>, Mamba<>>>(),
      body<Mamba<>, Mlp<>>(),
      body<Mlp<>, Mamba<>>(),
      body<Gain<Bound<3>, true>>(),
      body<Gain<Bound<4>, true>>(),
      body<Gain<Bound<3>, false>>(),
      body<Coarse::Scale>(),
      body<Fine::Scale>(),
      body<Family<Coarse>::Scale>(),
      body<Family<Fine>::Scale>(),
      body<Family<::Silu>::Scale>(),
      body<Family<moe_mamba::Silu>::Scale>(),
      body<Table<Numbers{}>>(),
      body<Table<Numbers{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}>>(),
  };
  for (const auto& text : texts) {
    INFO(text);
    CHECK(std::count(std::begin(texts), std::end(texts), text) == 1);
  }
}

TEST_CASE("Weights of auxiliary losses are spelled on request", "[model]") {
  using Usual = Net<Repeat<2, Moe<Experts<4>>>>;
  using Other = Net<AverageAuxiliaryLosses, Repeat<2, Moe<Experts<4>, BalanceLoss<1, 50>, ZLoss<2, 2000>>>>;
  CHECK(spelling<Usual>() == spelling<Other>());
  CHECK(spelling<Usual>(AuxiliaryLosses::spelled) == spelling<Usual>());
  CHECK(spelling<Other>(AuxiliaryLosses::spelled) ==
        "LanguageModel<Vocabulary<11>, Width<32>, AverageAuxiliaryLosses, "
        "Repeat<2, Moe<Experts<4>, BalanceLoss<1, 50>, ZLoss<1, 1000>>>>");
}

TEST_CASE("How parameters are initialised is spelled on request", "[model]") {
  using Other = Net<UnitFanIn, Head, Repeat<2, Moe<JointFanIn, Experts<4>>>>;
  CHECK(spelling<Other>() == spelling<Net<Head, Repeat<2, Moe<Experts<4>>>>>());
  CHECK(spelling<Other>(AuxiliaryLosses::spelled) ==
        "LanguageModel<Vocabulary<11>, Width<32>, Head, UnitFanIn, Repeat<2, Moe<Experts<4>, JointFanIn>>>");
}

TEST_CASE("Models of series, and types of a program's own, are spelled by their names", "[model]") {
  CHECK(spelling<SequenceModel<Outputs<2>, Inputs<3>, Width<8>, Mamba<State<4>>>>() ==
        "SequenceModel<Inputs<3>, Outputs<2>, Width<8>, Mamba<State<4>>>");
  CHECK(body<Mlp<moe_mamba::Silu>>() == "Mlp<Silu>");
  CHECK(body<Mlp<::Silu>>() == "Mlp<::Silu>");
  CHECK(body<Mlp<other::Swish>>() == "Mlp<other::Swish>");
  CHECK(body<Mlp<other::Versioned>>() == "Mlp<other::Versioned>");
  CHECK(body<Mlp<other::Lettered<','>>>().starts_with("Mlp<other::Lettered<','"));
  const std::string here = "(anonymous namespace)::";
  CHECK(body<Mlp<Swish>>() == "Mlp<" + here + "Swish>");
  CHECK(body<Gain<Bound<3>, true>>() == here + "Gain<" + here + "Bound<3>, true>");
  CHECK(body<Coarse::Scale>() == here + "Coarse::Scale");
  CHECK(body<Family<Gain<int, true>>::Scale>() == here + "Family<" + here + "Gain<int, true>>::Scale");
  CHECK(body<Family<moe_mamba::Silu>::Scale>() == here + "Family<moe_mamba::Silu>::Scale");
}

TEST_CASE("A type's member spelling is used instead of its name", "[model]") {
  CHECK(body<Table<Numbers{}>>() == "Table of 0");
  CHECK(body<PreNorm<NoNorm>, Table<Numbers{}>>() == "PreNorm<NoNorm>, Table of 0");
}

TEST_CASE("Names that a compiler may give two types are recognised", "[model]") {
  for (const char* name :
       {"Table<{{0, 1, ...}}>", "Choice<int (const char *, ...)>", "Factor<{1.000000e-01}>",
        "Factor<{1, 2.500000e+00}>", "Factor<{1.5, 2.500000e-12, 3}>", "Lettered<{}>", "Lettered<1, {}>",
        "Lettered<{1, {}}>", "Lettered<<lambda closure object>main()::<lambda(double)>()>", "<lambda(auto:61)>::Local",
        "(lambda at main.cpp:3:5)", "main()::{lambda(int)#1}", "main::'lambda'(int)", "f(auto:2)::Local",
        "<unnamed struct>", "mine::(unnamed enum at main.cpp:3:5)", "mine::(anonymous class)::Local"}) {
    INFO(name);
    CHECK(detail::leaves_out(name));
  }
  for (const char* name :
       {"", "Scale", "Factor<1.0000000000000001e-1>", "Factor<2.5e+0>", "Text<\"a.000000\">", "Text<\"1.000000e\">",
        "Text<\".. .\">", "Text<\"1.\">", "Factor<{1, 2}>", "Factor<Numbers{}>", "Factor<Bound<1>{}>", "lambda",
        "mine::unnamed", "{anonymous}::Scale", "<unnamed>::Scale", "(anonymous namespace)::Scale", "main()::Local"}) {
    INFO(name);
    CHECK(!detail::leaves_out(name));
  }
}

/// Whether this compiler's name for a type is refused; a plain function, because if lambdas have no linkage, neither
/// has their type.
template <class T>
constexpr bool is_refused() {
  return detail::leaves_out(detail::compilers_name<T>());
}
template <auto Function>
struct OfFunction : Choice<int> {};
template <class T>
auto local_of(T) {
  return [] {
    struct Local {};
    return Choice<Local>{};
  };
}

TEST_CASE("Types that differ only in unnamed parts are refused with this compiler", "[model]") {
  const auto plain = [](double x) { return x; };
  const auto generic = [](auto x) { return x; };
  struct {
  } unnamed;
  enum { Enumerator };
  CHECK(is_refused<decltype(plain)>());
  CHECK(is_refused<decltype(generic)>());
  CHECK(is_refused<decltype(unnamed)>());
  CHECK(is_refused<decltype(Enumerator)>());
  CHECK(is_refused<Choice<decltype(plain)>>());
  CHECK(is_refused<Choice<decltype(unnamed)>>());
  CHECK(is_refused<Family<decltype(generic)>::Scale>());
  CHECK(is_refused<OfFunction<[](double x) { return x; }>>());
  CHECK(is_refused<OfFunction<[](auto x) { return x; }>>());
  // clang omits all scopes of types that are local to a function.
  if (detail::compilers_name<decltype(local_of(plain)())>().find("::Local") != std::string_view::npos) {
    CHECK(is_refused<decltype(local_of(1)())>());
  }
  CHECK_FALSE(is_refused<Coarse::Scale>());
  CHECK_FALSE(is_refused<Choice<Swish>>());
  CHECK_FALSE(is_refused<Gain<Bound<3>, true>>());
}

TEST_CASE("Names of all compilers become one", "[model]") {
  const std::string expected = "mine::(anonymous namespace)::Gain<(anonymous namespace)::Bound<3>, const int*>";
  for (const char* name : {"mine::{anonymous}::Gain<{anonymous}::Bound<3>, const int*>",
                           "mine::<unnamed>::Gain<{anonymous}::Bound<3>, const int*>",
                           "mine::(anonymous namespace)::Gain<(anonymous namespace)::Bound<3>, const int *>",
                           "mine::_GLOBAL__N__2270e2ca_4_n_cu_main::Gain<_GLOBAL__N__1::Bound<3>, const int *>"}) {
    CHECK(detail::common_name(name) == expected);
  }
  CHECK(detail::common_name("moe_mamba::Relu") == "Relu");
  CHECK(detail::common_name("Relu") == "::Relu");
  CHECK(detail::common_name("mine::moe_mamba::Relu") == "mine::moe_mamba::Relu");
  CHECK(detail::common_name("moe_mamba_of_mine::Relu") == "moe_mamba_of_mine::Relu");
  CHECK(detail::common_name("std::__cxx11::list<std::__1::pair<int, int> >") == "std::list<std::pair<int, int>>");
}

TEST_CASE("Quoted text is unchanged", "[model]") {
  for (const char* name :
       {R"(a::Text<a::Letters<4>{"a,b"}>)", R"(a::Text<"a::b, c",'"', '\'', x>)", R"(a::Text<"\",b">)"}) {
    INFO(name);
    const std::string common = detail::common_name(name);
    for (const char* literal : {R"("a,b")", R"("a::b, c")", R"('"')", R"('\'')", R"("\",b")"}) {
      const bool is_in = std::string_view(name).find(literal) != std::string_view::npos;
      CHECK((common.find(literal) != common.npos) == is_in);
    }
  }
  CHECK(detail::common_name("a::Text<\"open") == "a::Text<\"open");
}
