/// Trains a MoE-Mamba of a few million parameters on text in a few minutes. See --help, or quickstart.sh, which builds
/// and runs it.
#include <chrono>
#include <filesystem>
#include <iostream>
#include <string>
#include <type_traits>

#include "moe_mamba/moe_mamba.hpp"
#include "quickstart/corpus.hpp"
#include "quickstart/nets.hpp"
#include "quickstart/options.hpp"
#include "quickstart/plan.hpp"
#include "quickstart/report.hpp"
#include "support/program.hpp"
#include "support/terminal.hpp"

#if defined(QUICKSTART_CUDA)
#include "moe_mamba/cuda.hpp"
#endif

using namespace moe_mamba;
using namespace quickstart;

namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr Index held_out_points = 12;       // of the curve
constexpr double checkpoint_interval = 45;  // seconds

/// Sequential windows in a batch of up to twelve, one per held-out block of a long text.
auto held_out_windows(const Corpus& corpus, const Settings& settings) {
  const auto count = (static_cast<Index>(corpus.held_out.size()) - 1) / settings.length;
  return sequential_windows(corpus.held_out, Length{settings.length},
                            Batch{std::clamp<Index>(count, 1, static_cast<Index>(most_blocks))});
}

/// The held-out loss in nats per byte. States are carried from window to window.
template <class Definition, class Backend>
double held_out_loss(const Model<Definition, float, Backend>& model, Backend& device, const Corpus& corpus,
                     const Settings& settings) {
  auto text = held_out_windows(corpus, settings);
  Workspace<Definition, float, Backend> workspace(device, text.shape());
  States<Definition, float, typename Backend::Memory> states(text.shape().batch);
  double sum = 0;
  for (Index i = 0; i < text.batches_per_pass(); ++i) {
    const TokenBatch batch = text.next();
    sum += model.loss(workspace, batch.inputs, batch.targets, batch.shape, &states).prediction;
  }
  return sum / static_cast<double>(text.batches_per_pass());
}

template <class Definition, class Backend>
auto make_trainer(Model<Definition, float, Backend>& model, Backend& device, const Settings& settings, Index steps) {
  return Trainer(model, device, AdamW{.learning_rate = settings.learning_rate, .weight_decay = settings.weight_decay},
                 Cosine{.warmup = std::min(settings.warmup, steps / 10), .steps = steps, .floor = settings.floor},
                 TrainerOptions{.largest = {settings.batch, settings.length}});
}

/// The number of steps that fit into the requested time, estimated from a few steps of a temporary model.
template <class Definition, class Backend>
Index affordable_steps(Backend& device, const Corpus& corpus, const Settings& settings, const Options& options) {
  const double begin = seconds_now(), budget = 60 * options.minutes.value_or(3);
  std::cout << "measuring the speed of this machine\n" << std::flush;
  Model<Definition, float, Backend> model(Seed{1});
  auto trainer = make_trainer(model, device, settings, 1000);
  auto batches = windows(corpus.training, Length{settings.length}, Batch{settings.batch});
  for (int i = 0; i < 2; ++i) trainer.step(batches.next());
  const double warm = seconds_now();
  Index steps = 0;
  do {
    trainer.step(batches.next());
    ++steps;
  } while (!interrupted && seconds_now() - warm < 0.02 * budget);
  const double step = (seconds_now() - warm) / static_cast<double>(steps), pausing = seconds_now();
  held_out_loss(model, device, corpus, settings);
  const double pauses = static_cast<double>(held_out_points) * (seconds_now() - pausing);
  return std::max<Index>(10, static_cast<Index>((budget - (seconds_now() - begin) - pauses) / step));
}

/// The text of the progress line.
std::string status(const History& history, Index steps) {
  const Point& point = history.open().step > 0 ? history.open() : history.points().back();
  const double held_out = history.held_out().back().loss;
  std::string text =
      format("loss %.3f  held out %.3f nats, %.2f bits per byte  ", point.loss, held_out, bits(held_out)) +
      short_number(point.tokens_per_second) + " bytes/s";
  double least = 1, most = 0;
  for (const auto& layer : point.load) {
    least = std::min(least, *std::min_element(layer.begin(), layer.end()));
    most = std::max(most, *std::max_element(layer.begin(), layer.end()));
  }
  if (!point.load.empty()) text += format("  experts %.0f-%.0f%%", 100 * least, 100 * most);
  if (50 * point.step < steps) return text;  // too early to tell
  const double each = history.seconds() / static_cast<double>(point.step);
  return text + "  " + clock_time(each * static_cast<double>(steps - point.step)) + " left";
}

/// Trains a definition, resuming from its checkpoint if there is one, and saves it. Returns nothing if interrupted by
/// Ctrl-C, after saving a checkpoint. A new run has as many steps as `like`, if given.
template <class Definition, class Backend>
std::optional<TrainedModel> train(Backend& device, const std::string& name, const std::string& file,
                                  const Corpus& corpus, const Settings& settings, const Options& options,
                                  const Plan* like = nullptr) {
  const auto checkpoint = options.folder / (file + ".checkpoint.safetensors");
  Plan plan = wanted_plan(spelling<Definition>(), settings, corpus, options);
  const auto stored = stored_plan(checkpoint, plan, options);
  if (stored) {
    plan = *stored;
  } else if (like != nullptr) {
    plan.follow(*like);
  } else {
    plan.steps = options.steps ? *options.steps : affordable_steps<Definition>(device, corpus, settings, options);
  }
  if (interrupted) return std::nullopt;

  constexpr Cost facts = cost<Definition>;
  std::cout << name << ": " << short_number(static_cast<double>(facts.parameters)) << " parameters, "
            << short_number(static_cast<double>(facts.active_parameters)) << " active per byte, " << grouped(plan.steps)
            << " steps of " << grouped(settings.tokens()) << " bytes\n"
            << std::flush;

  Model<Definition, float, Backend> model(Seed{plan.seed});
  auto trainer = make_trainer(model, device, settings, plan.steps);
  auto batches = windows(corpus.training, Length{settings.length}, Batch{settings.batch}, Seed{plan.seed});
  History history;
  if (stored) {
    const CheckpointInfo info = load_checkpoint(checkpoint, trainer);
    batches.restore(info.windows);
    history = History::from_text(info.metadata.at("quickstart.history"));
    std::cout << "resuming from step " << grouped(trainer.steps()) << " of " << checkpoint.string() << '\n';
  }
  const auto keep = [&] {
    auto metadata = plan.metadata();
    metadata["quickstart.history"] = history.to_text();
    save_checkpoint(checkpoint, trainer, batches.state(), metadata);
  };
  const auto evaluate = [&] {
    const double begin = seconds_now();
    history.add_held_out(trainer.steps(), held_out_loss(model, device, corpus, settings));
    history.add_seconds(seconds_now() - begin);
  };
  if (!stored) {
    evaluate();
    keep();  // fails early if the folder is not writable or the disk is full
  }

  Progress progress;
  const Index begun = trainer.steps();
  const Index point_interval = (plan.steps + 99) / 100;
  const Index held_out_interval = (plan.steps + held_out_points - 1) / held_out_points;
  double kept = seconds_now();
  while (trainer.steps() < plan.steps && !interrupted) {
    const double begin = seconds_now();
    const StepReport report = trainer.step(batches.next());
    if (!report.applied) throw std::runtime_error("the gradient of a step is not finite; the model is unchanged");
    const Index step = trainer.steps();
    history.add_step(step, point_interval, report.loss, seconds_now() - begin, settings.tokens(),
                     [&](const auto& visit) { trainer.visit_routers(visit); });
    if (step % held_out_interval == 0 || step == plan.steps) evaluate();
    progress.show(static_cast<double>(step) / static_cast<double>(plan.steps), status(history, plan.steps));
    if (seconds_now() - kept > checkpoint_interval) {
      keep();
      kept = seconds_now();
    }
  }
  progress.close();
  if (trainer.steps() > begun) keep();
  if (trainer.steps() < plan.steps) {
    std::cout << "interrupted; saved " << checkpoint.string() << ". Run the program again to resume.\n";
    return std::nullopt;
  }
  save(model, options.folder / (file + ".safetensors"), {{"definition", plan.definition}});
  TrainedModel trained{name, plan, facts, history, settings.tokens()};
  std::cout << name << ": held out "
            << format("%.3f nats, %.3f bits per byte", trained.held_out_loss(), bits(trained.held_out_loss()))
            << " after " << clock_time(history.seconds()) << "; saved "
            << (options.folder / (file + ".safetensors")).string() << '\n';
  return trained;
}

/// Loads the saved model and generates text, byte by byte.
template <class Definition, class Backend>
std::string write_text(Backend& device, const Options& options, const Corpus& corpus, std::uint64_t seed,
                       std::string& prompt) {
  const auto model = load<Definition, float, Backend>(options.folder / "model.safetensors");
  Decoder decoder(model, device);
  prompt = options.prompt.value_or(default_prompt(corpus));
  std::string text;
  std::cout << '\n';
  for (const char byte : prompt) std::cout << printable(static_cast<unsigned char>(byte));
  const double begin = seconds_now();
  for (const Token token : decoder.generate(prompt, TopP{0.9f, 0.8f}, Seed{seed}, options.tokens)) {
    if (interrupted) break;
    text += static_cast<char>(token);
    std::cout << printable(token) << std::flush;
  }
  std::cout << "\n\n"
            << format("%zu bytes, %.0f per second\n", text.size(),
                      static_cast<double>(text.size()) / std::max(seconds_now() - begin, 1e-9));
  return text;
}

/// Reads the text and trains `Definition`, after `Reference` if that is another one.
template <class Definition, class Reference, class Backend>
void run(Backend& device, const Settings& settings, const Options& options) {
  const Corpus corpus = read_corpus(options.texts, options.folder, static_cast<std::size_t>(settings.length));
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error) throw std::runtime_error(options.folder.string() + ": the folder cannot be created: " + error.message());
  write_file(options.folder / "held-out.txt", std::as_bytes(std::span(corpus.held_out)));
  std::cout << "text: " << grouped(static_cast<long long>(corpus.size())) << " bytes of " << grouped(corpus.files.read)
            << " files; 5% is held out\n"
            << std::flush;

  std::vector<TrainedModel> models;
  const auto add = [&](std::optional<TrainedModel> model) {
    if (model) models.push_back(std::move(*model));
    return model.has_value();
  };
  if (!add(train<Definition>(device, "MoE-Mamba", "model", corpus, settings, options))) return;
  if constexpr (!std::is_same_v<Definition, Reference>) {
    if (!add(train<Reference>(device, "plain Mamba", "plain", corpus, settings, options, &models[0].plan))) return;
  }

  ReportFacts facts;
  facts.threads = options.threads;
  facts.settings = settings.text();
  if (options.tokens > 0)
    facts.generated = write_text<Definition>(device, options, corpus, models[0].plan.seed, facts.prompt);
  facts.gzip_bits = compressed_bits("gzip", options.folder / "held-out.txt", corpus.held_out.size());
  facts.xz_bits = compressed_bits("xz", options.folder / "held-out.txt", corpus.held_out.size());
  write_file(options.folder / "report.html", report_html(corpus, models, facts));
  write_file(options.folder / "loss.svg", loss_chart(models, facts).svg(true));
  std::cout << "report: " << (options.folder / "report.html").string() << '\n';
  if (models.size() > 1) {
    std::cout << "examples/paper.sh compares them with three seeds, tuned learning rates and other systems\n";
  }
}

template <class Backend>
void run(Backend& device, const Options& options) {
  options.compare ? run<SmallNet, SmallPlain>(device, small_settings, options)
                  : run<Net, Net>(device, Settings(), options);
}

}  // namespace

int main(int count, char** arguments) {
  const auto run_on_device = [](const Options& options) {
    if (!options.cuda) {
      Cpu cpu(Threads{options.threads});
      run(cpu, options);
      return;
    }
#if defined(QUICKSTART_CUDA)
    Cuda device;
    run(device, options);
#else
    throw std::invalid_argument("--cuda needs a build with the CUDA Toolkit; this program was built without it");
#endif
  };
  return run_program(
      "quickstart", help_text, [&] { return parse(count, arguments); }, run_on_device);
}
