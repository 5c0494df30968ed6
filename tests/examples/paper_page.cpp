#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "paper/page.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace paper;

namespace {

/// A falling curve that needs `steps` / `speed` steps to what another needs `steps` for.
Curve falling(double speed, Index steps = 1000, Index evaluations = 100) {
  Curve curve;
  for (Index i = 0; i <= evaluations; ++i) {
    const auto step = static_cast<double>(i * steps / evaluations);
    curve.points.push_back(
        {static_cast<Index>(step), 0.1 * step, 0, 1 + 4 * std::pow(1 + speed * step / 20, -0.4), 0.5});
  }
  return curve;
}

Curve losses(const std::vector<double>& values) {
  Curve curve;
  for (std::size_t i = 0; i < values.size(); ++i)
    curve.points.push_back({static_cast<Index>(10 * i), 0, 0, values[i], -1});
  return curve;
}

System system_named(const std::string& key, const std::string& name) {
  System system;
  system.key = key;
  system.name = name;
  system.definition = "LanguageModel<Mamba<>>";
  system.cost.active_parameters = 1000;
  system.cost.parameters = 2000;
  system.cost.training_flops_per_token = 3000;
  return system;
}

Group small_group() {
  return {"width 8",
          {},
          {{system_named("mamba", "Mamba"), 3, ""},
           {system_named("moe-mamba", "MoE-Mamba"), 3, ""},
           {system_named("mamba-mlp", "Mamba & <MLP>"), 1, "moe-mamba"},
           {system_named("moe-mamba-8", "MoE-Mamba, 8 experts"), 1, "moe-mamba"},
           {system_named("share-1-5", "Mamba : experts 1 : 5"), 1, "moe-mamba"},
           {system_named("inner-gate-other", "Inner MoE, gate"), 1, "mamba"}}};
}

void write(const std::filesystem::path& path, const std::string& text) { std::ofstream(path) << text; }

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

using Rgb = std::array<double, 3>;  // linear, from 0 to 1

Rgb rgb(const std::string& colour) {
  Rgb result;
  for (std::size_t i = 0; i < 3; ++i) {
    const double value = std::stoi(colour.substr(1 + 2 * i, 2), nullptr, 16) / 255.0;
    result[i] = value <= 0.04045 ? value / 12.92 : std::pow((value + 0.055) / 1.055, 2.4);
  }
  return result;
}

Rgb product(const std::array<Rgb, 3>& matrix, const Rgb& x) {
  Rgb result{};
  for (std::size_t i = 0; i < 3; ++i) {
    for (std::size_t k = 0; k < 3; ++k) result[i] += matrix[i][k] * x[k];
  }
  return result;
}

/// CIE 1976 L*a*b*, for D65.
Rgb lab(const Rgb& colour) {
  Rgb xyz = product({{{0.4124, 0.3576, 0.1805}, {0.2126, 0.7152, 0.0722}, {0.0193, 0.1192, 0.9505}}}, colour);
  const Rgb white{0.9505, 1, 1.089};
  for (std::size_t i = 0; i < 3; ++i) {
    const double part = std::clamp(xyz[i] / white[i], 0.0, 1.0);
    xyz[i] = part > 0.008856 ? std::cbrt(part) : 7.787 * part + 16.0 / 116;
  }
  return {116 * xyz[1] - 16, 500 * (xyz[0] - xyz[1]), 200 * (xyz[1] - xyz[2])};
}

double luminance(const std::string& colour) {
  const Rgb c = rgb(colour);
  return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
}

}  // namespace

TEST_CASE("a loss is reached at two evaluations in a row") {
  CHECK_FALSE(steps_to(losses({5, 4, 3}), 2));
  CHECK_FALSE(steps_to(losses({5, 4, 2, 3, 2}), 2));  // the last one has none after it
  CHECK(steps_to(losses({5, 4, 2, 3, 2, 1.5}), 2).value() == 40);
  CHECK(steps_to(losses({5, 3, 1, 1}), 2).value() == 15);  // halfway between two evaluations
}

TEST_CASE("a curve that falls k times as fast has a speed-up of k, at the end and on the way") {
  std::mt19937 random(1);
  for (int i = 0; i < 50; ++i) {
    const double factor = std::uniform_real_distribution(1.3, 6.0)(random);
    const Curve reference = falling(1), curve = falling(factor);
    CHECK(speed_up(curve, reference).value() == Approx(factor).epsilon(0.02));
    CHECK_FALSE(speed_up(reference, curve));
    const auto along = speed_up_along(curve, reference);
    REQUIRE(along.size() == reference.points.size() - 1);
    for (std::size_t k = 20; k < along.size(); ++k) CHECK(along[k].value() == Approx(factor).epsilon(0.05));
    CHECK(along.back() == speed_up(curve, reference));
  }
}

TEST_CASE("on the way, a loss that rises again does not count") {
  const auto along = speed_up_along(falling(2, 1000, 100), losses({5, 4, 4.5, 4.4, 3}));
  CHECK(along[1].value() == Approx(along[0].value()));
  CHECK(along[2].value() == Approx(along[0].value()));
}

TEST_CASE("runs that do not reach the loss count as the slowest in the median") {
  CHECK(median_speed_up({2.0, 3.0, std::nullopt}).value() == 2);
  CHECK(median_speed_up({4.0, 2.0}).value() == 3);
  CHECK_FALSE(median_speed_up({2.0, std::nullopt}));
  CHECK_FALSE(median_speed_up({2.0, std::nullopt, std::nullopt}));
  CHECK_FALSE(median_speed_up({}));
}

TEST_CASE("keys say what a system is varied in") {
  CHECK(expert_count("moe-mamba").value() == 32);
  CHECK(expert_count("moe-mamba-128").value() == 128);
  for (const char* key : {"mamba", "moe-mamba-", "moe-mamba-8x", "moe-mamba--8", "moe-mamba-total"})
    CHECK_FALSE(expert_count(key));
  CHECK(role("moe-mamba") == Role::main);
  CHECK(role("moe-mamba-4") == Role::expert_count);
  CHECK(role("share-1-5") == Role::ratio);
  CHECK(role("routed-in-every") == Role::inner);
}

TEST_CASE("a group's size is no number of experts, and seeds are compared with their own") {
  test::Folder folder;
  Group group{
      "width 64", {}, {{system_named("mamba-64", "Mamba"), 2, ""}, {system_named("moe-mamba-64", "MoE-Mamba"), 2, ""}}};
  write(folder / "mamba-64.seed-1.csv", falling(1).to_csv());
  for (const char* seed : {"1", "2"})
    write(folder / (std::string("moe-mamba-64.seed-") + seed + ".csv"), falling(2).to_csv());
  const Results results(folder.path());
  const Comparison comparison(group, results);
  const SystemSummary* mixture = comparison.finished("moe-mamba");
  REQUIRE(mixture != nullptr);
  REQUIRE(mixture->seeds.size() == 2);
  CHECK(mixture->seeds[0].compared);
  CHECK_FALSE(mixture->seeds[1].compared);  // plain Mamba has not run with it
  CHECK(mixture->speed_ups().size() == 1);
}

TEST_CASE("every page with runs missing is whole, refers to nothing outside, and says what has not run") {
  std::mt19937 random(2);
  for (int i = 0; i < 30; ++i) {
    test::Folder folder;
    std::filesystem::create_directories(folder / "runs");
    const Group group = small_group();
    const auto coin = [&] { return std::bernoulli_distribution(i == 0 ? 0.0 : i == 1 ? 1.0 : 0.6)(random); };
    std::size_t missing = 0;
    for (const Entry& entry : group.entries) {
      std::size_t run = 0;
      for (Index seed = 1; seed <= entry.seeds; ++seed) {
        if (!coin()) continue;
        ++run;
        const double speed = std::uniform_real_distribution(0.5, 3.0)(random);
        write(folder / "runs" / (entry.system.key + ".seed-" + std::to_string(seed) + ".csv"), falling(speed).to_csv());
      }
      const std::size_t tables = entry.system.key == "moe-mamba" ? 3 : 1;  // among its variants as well
      if (run == 0) missing += tables;
    }
    if (coin())
      write(folder / "runs" / "moe-mamba.seed-1.experts.csv",
            "router,expert,kind,count\n0,0,digit,3\n0,1,digit,0\n0,1,space,0\n");
    if (coin())
      write(folder / "inference.csv",
            "system,context,microseconds_per_token,state_bytes\nMamba,1024,5,600\nMamba,2048,5,600\n");
    const Corpus corpus;
    write_page(folder / "paper.html", {group}, Results(folder / "runs"), corpus);
    std::ifstream file(folder / "paper.html");
    const std::string page{std::istreambuf_iterator<char>(file), {}};
    for (const char* tag : {"svg", "table", "tr", "td", "div", "g", "text", "h2", "p", "details"}) {
      CHECK(count(page, std::string("<") + tag + ">") + count(page, std::string("<") + tag + " ") ==
            count(page, std::string("</") + tag + ">"));
    }
    CHECK(count(page, "http") == count(page, "http://www.w3.org/2000/svg"));
    for (const char* wrong : {"nan", "inf\"", "<MLP>", "src="}) CHECK(count(page, wrong) == 0);
    CHECK(count(page, "Mamba &amp; &lt;MLP&gt;") > 0);
    CHECK(count(page, "not run: ") == missing);
  }
}

TEST_CASE("a file that is not what it should be is named") {
  test::Folder folder;
  write(folder / "table.csv", "a,b\n1,2\n3\n");
  using test::Contains;
  CHECK_THROWS_WITH(CsvTable::read(folder / "table.csv", {"a"}), Contains("table.csv") && Contains("'3'"));
  CHECK_THROWS_WITH(CsvTable::read(folder / "table.csv", {"c"}), Contains("table.csv") && Contains("'c'"));
  CHECK_FALSE(CsvTable::read(folder / "missing.csv", {"a"}));
}

TEST_CASE("axes have a few different round numbers between their ends") {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    support::Axis axis{"", std::pow(10, std::uniform_real_distribution(-6.0, 9.0)(random)), 0};
    axis.high = axis.low * std::pow(10, std::uniform_real_distribution(0.05, 8.0)(random));
    axis.scale = i % 2 == 0 ? support::Scale::linear : support::Scale::logarithmic;
    const auto ticks = support::ticks(axis, 7);
    CAPTURE(axis.low, axis.high, i % 2);
    CHECK(ticks.size() >= 2);
    CHECK(ticks.size() <= 14);
    for (std::size_t k = 0; k < ticks.size(); ++k) {
      CHECK(axis.share(ticks[k].first) > -1e-6);
      CHECK(axis.share(ticks[k].first) < 1 + 1e-6);
      if (k > 0) CHECK(ticks[k].second != ticks[k - 1].second);
    }
  }
}

TEST_CASE("colours stand out from their ground, and from each other with every colour deficiency") {
  // Normal vision, deuteranopia, protanopia, tritanopia: Machado, Oliveira and Fernandes 2009, severity 1.
  const std::array<Rgb, 3> visions[] = {
      {{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}},
      {{{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}}},
      {{{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}}},
      {{{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}}}};
  for (const bool dark : {false, true}) {
    std::vector<std::string> colours;
    for (const auto& [on_light, on_dark] : support::colours) colours.emplace_back(dark ? on_dark : on_light);
    const double ground = luminance(dark ? "#12161d" : "#ffffff");
    for (std::size_t i = 0; i < colours.size(); ++i) {
      const double own = luminance(colours[i]);
      CAPTURE(colours[i]);
      CHECK((std::max(own, ground) + 0.05) / (std::min(own, ground) + 0.05) >= 3);  // WCAG, of graphics
      for (std::size_t k = 0; k < i; ++k) {
        for (const auto& vision : visions) {
          const Rgb a = lab(product(vision, rgb(colours[i]))), b = lab(product(vision, rgb(colours[k])));
          CAPTURE(colours[k]);
          CHECK(std::hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]) > 15);  // about 2 can just be told apart side by side
        }
      }
    }
  }
}
