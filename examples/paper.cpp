/// Compares MoE-Mamba with plain Mamba and other systems on one page, as the paper does. See --help, or paper.sh, which
/// builds and runs it.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "paper/catalogue.hpp"
#include "paper/corpus.hpp"
#include "paper/inference.hpp"
#include "paper/options.hpp"
#include "paper/page.hpp"
#include "paper/schedule.hpp"
#include "paper/study.hpp"
#include "support/program.hpp"

using namespace paper;
using support::interrupted;

namespace {

/// The lines of plan.txt: what must be the same when a folder's runs are continued.
std::string plan_of(const Corpus& corpus, const std::vector<Group>& groups) {
  std::string text = support::format("text: %016llx\n", static_cast<unsigned long long>(corpus.fingerprint));
  for (const Group& group : groups) {
    text += group.title + ": " + support::grouped(group.recipe.steps) + " steps of " + group.recipe.text() + "\n";
  }
  return text;
}

/// Writes plan.txt, with the lines of earlier programs that this one has nothing to do with. Throws std::runtime_error if a
/// line says something else in the folder.
void check_plan(const std::filesystem::path& file, const std::string& plan) {
  std::string text = plan;
  std::ifstream stored(file, std::ios::binary);
  for (std::string then; std::getline(stored, then);) {
    const std::string subject = then.substr(0, then.find(": ") + 2);
    const auto found = ("\n" + plan).find("\n" + subject);
    if (found == std::string::npos) {
      text += then + "\n";
      continue;
    }
    const std::string now = plan.substr(found, plan.find('\n', found) - found);
    if (then != now) {
      throw std::runtime_error(file.string() + ": the runs in this folder are of '" + then + "', not of '" + now +
                               "'; use --fresh to start over, or --out for another folder");
    }
  }
  write_text(file, text);
}

std::vector<Group> groups_of(const Options& options) {
#if defined(PAPER_CUDA)
  moe_mamba::require(options.cuda, "--cuda", "missing", "given, as this program was built for a CUDA device");
  std::vector<Group> groups = options.full ? full_groups() : device_groups();
#else
  moe_mamba::require(!options.cuda, "--cuda", "given", "left out, as this program was built without the CUDA Toolkit");
#if defined(PAPER_MORE)
  std::vector<Group> groups = more_groups();
#else
  moe_mamba::require(!options.hours, "--hours", "given", "left out, as this program was built without more systems");
  std::vector<Group> groups = core_groups();
#endif
#endif
  for (Group& group : groups) {
    group.recipe.seeds = options.seeds;
    if (options.steps) {
      group.recipe.steps = *options.steps;
      group.recipe.tuning_steps = std::max<Index>(*options.steps / 8, 10);
    }
    for (Entry& entry : group.entries) entry.seeds = std::min(entry.seeds, options.seeds);
  }
  return groups;
}

void run(const Options& options) {
  const std::vector<Group> groups = groups_of(options);
  const auto runs = options.folder / "runs";
  if (options.fresh) {
    std::filesystem::remove_all(runs);
    std::filesystem::remove(options.folder / "plan.txt");
  }
  std::error_code error;
  std::filesystem::create_directories(runs, error);
  if (error) throw std::runtime_error(runs.string() + ": the folder cannot be created: " + error.message());
  std::cout << "reading text\n" << std::flush;
  const Corpus corpus = read_corpus(options.texts, options.folder, options.steps.has_value());
  check_plan(options.folder / "plan.txt", plan_of(corpus, groups));
  std::cout << support::grouped(static_cast<long long>(corpus.size())) << " bytes of " << support::grouped(corpus.files)
            << " different files, " << support::grouped(static_cast<long long>(corpus.held_out.size()))
            << " bytes held out\n"
            << std::flush;

  Results results(runs);
  const double minutes = options.minutes.value_or(options.hours ? 60 * *options.hours : 1e300);
  const double deadline = seconds_now() + 60 * minutes;
  Schedule schedule(groups, corpus, results, [&] { return interrupted || seconds_now() > deadline; });
  schedule.train(options.threads);
#if !defined(PAPER_CUDA)
  const auto inference = options.folder / "inference.csv";
  if (!options.steps && !schedule.interrupted() && !std::filesystem::exists(inference)) {
    std::cout << "measuring what a byte costs after long contexts\n" << std::flush;
    const std::string csv = inference_csv(options.threads, [&] { return schedule.interrupted(); });
    if (!csv.empty()) write_text(inference, csv);
  }
#endif
  write_page(options.folder / "paper.html", groups, results, corpus);
  write_loss_drawing(options.folder / "paper-loss.svg", groups.front(), results);
  if (interrupted) std::cout << "interrupted; run it again to resume\n";
  std::cout << "page: " << (options.folder / "paper.html").string() << '\n';
}

}  // namespace

int main(int count, char** arguments) {
  return support::run_program(
      "paper", help_text, [&] { return parse(count, arguments); }, run);
}
