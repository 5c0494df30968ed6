/// Trains Mamba, MoE-Mamba and a Transformer on selective copying and induction heads and tests how they keep what they
/// have learned on longer sequences. See --help.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "mechanism/options.hpp"
#include "mechanism/recipe.hpp"
#include "mechanism/results.hpp"
#include "mechanism/runs.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/program.hpp"
#include "support/terminal.hpp"

using namespace mechanism;
using support::clock_time;
using support::grouped;
using support::interrupted;
using support::Progress;

namespace {

void report(const Run& run) {
  for (const Row& row : run.rows) {
    if (row.test_length != run.recipe.length) continue;
    std::cout << name_of(run.task) << ", " << run.system << ": "
              << (run.started ? grouped(run.recipe.steps) + " steps and the tests in " + clock_time(run.seconds)
                              : std::string("done before"))
              << format("; %.1f%% right at length ", 100 * row.accuracy) << grouped(row.test_length) << '\n'
              << std::flush;
  }
}

void run(const Options& options) {
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) throw std::runtime_error(options.folder.string() + ": the folder cannot be created: " + error.message());
  const auto file = options.folder / "mechanism.csv";
  const std::vector<Row> known = options.fresh ? std::vector<Row>() : read_csv(file);
  Runs runs(options, known);
  const auto keep = [&] {
    std::vector<Row> rows;  // other seeds' and sizes', then these
    std::copy_if(known.begin(), known.end(), std::back_inserter(rows),
                 [&](const Row& row) { return !runs.include(row); });
    for (const Row& row : runs.rows()) rows.push_back(row);
    write_csv(file, rows);
  };
  Progress progress;
  const auto see = [&] {
    runs.visit_ended([&](const Run& ended) {
      progress.close();
      report(ended);
      keep();
    });
  };
  see();
  keep();  // fails early if it cannot be written
  for (const Task task : options.tasks) std::cout << description(task, recipe_of(task, options)) << '\n' << std::flush;
  runs.start(options.threads);
  while (!runs.all_seen() && !interrupted) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    progress.show(runs.done(), runs.status());
    see();
  }
  progress.close();
  const std::vector<Row> rows = runs.rows();
  for (const Task task : options.tasks) std::cout << '\n' << table(rows, task);
  std::cout << '\n'
            << (runs.all_seen() ? "results: " + file.string()
                                : "interrupted; " + file.string() +
                                      " has the runs that were finished. Run the program "
                                      "again for the others.")
            << '\n';
}

}  // namespace

int main(int count, char** arguments) {
  return support::run_program(
      "mechanism", help_text, [&] { return parse(count, arguments); }, run);
}
