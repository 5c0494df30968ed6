#include <cstring>
#include <memory>

#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/train/trainer.hpp"
#include "profile.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

/// The shape of the public mamba-130m.
using Mamba130m = LanguageModel<Vocabulary<50280>, Width<768>, Repeat<24, Mamba<>>>;
/// MoE-Mamba of Pióro et al. 2024 (arXiv 2401.04081), byte-level.
using MoeMamba416m =
    LanguageModel<Vocabulary<256>, Width<512>, Repeat<8, Mamba<>, Moe<Experts<32>, TopK<1>, Hidden<1536>>>>;

std::vector<Token> random_tokens(Index count, int vocabulary) {
  Random random(Seed{5});
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  for (Token& token : tokens) token = static_cast<Token>(random.below(static_cast<std::uint64_t>(vocabulary)));
  return tokens;
}

/// Initial parameters, drawn on all threads: for hundreds of millions of them the draws would take longer than the
/// measurements.
template <class Definition>
std::unique_ptr<Model<Definition>> initialised_model(const Settings& settings) {
  auto model = std::make_unique<Model<Definition>>(Uninitialised{});
  constexpr auto list = parameter_list<Definition>();
  cpu::Device device(Threads{settings.threads.back()});
  device.parallel(static_cast<Index>(list.size()), [&](Index number, int) {
    const Parameter& parameter = list[static_cast<std::size_t>(number)];
    initialise(parameter, Seed{1}, number, Index{Definition::Body::branches},
               model->parameters().data() + parameter.offset);
  });
  return model;
}

template <class Definition>
class Bench {
 public:
  explicit Bench(Report& report) : report_(report), model_(initialised_model<Definition>(report.settings())) {}

  void run() {
    const bool quick = report_.settings().quick;
    for (const int threads : report_.settings().threads) prefill(*model_, "prefill", threads, quick ? 128 : 512);
    for (const int threads : report_.settings().threads) decode(*model_, "decode", threads);
    {
      auto narrow = std::make_unique<Model<Definition, bfloat16>>(Uninitialised{});
      const auto wide = model_->parameters();
      std::transform(wide.begin(), wide.end(), narrow->parameters().begin(),
                     [](float value) { return static_cast<bfloat16>(value); });
      for (const int threads : report_.settings().threads) {
        prefill(*narrow, "prefill, bfloat16", threads, quick ? 128 : 512);
      }
      for (const int threads : report_.settings().threads) decode(*narrow, "decode, bfloat16", threads);
    }
    for (const int threads : report_.settings().threads) train(threads, quick ? Shape{2, 128} : Shape{4, 256});
  }

 private:
  static constexpr double head_operations = 2.0 * Definition::embedding_size;

  template <class S>
  void prefill(const Model<Definition, S>& model, const std::string& name, int threads, Index length) {
    cpu::Device device(Threads{threads});
    Workspace<Definition, S> workspace(device, {1, length});
    const auto tokens = random_tokens(length, Definition::vocabulary);
    std::vector<float> logits(Definition::output_width);
    const auto samples = interleave(report_.settings(), {[&] {
                                                           model.forward_last(workspace, tokens, {1, length}, logits);
                                                         },
                                                         [&] { multiply_add(device); }});
    // Only the last token needs the head.
    const double operations =
        static_cast<double>(length) * (cost<Definition>.flops_per_token - head_operations) + head_operations;
    report_.add({name + " of " + std::to_string(length),
                 threads,
                 samples[0],
                 static_cast<double>(length) / samples[0].median(),
                 "tok/s",
                 {of_peak(device, operations, samples[0], samples[1], 0.5)}});
    if constexpr (std::same_as<S, float>) profile_prefill(threads, tokens, logits);
  }

  void profile_prefill(int threads, std::span<const Token> tokens, std::span<float> logits) {
    const Model<Definition, float, profiled::Device> model(model_->parameters());
    profiled::Device device(Threads{threads});
    const Shape shape{1, static_cast<Index>(tokens.size())};
    Workspace<Definition, float, profiled::Device> workspace(device, shape);
    report_.add_shares("prefill", threads,
                       device.profile([&] { model.forward_last(workspace, tokens, shape, logits); }));
  }

  template <class S>
  void decode(Model<Definition, S>& model, const std::string& name, int threads) {
    cpu::Device device(Threads{threads});
    Workspace<Definition, S> workspace(device, {1, 1});
    States<Definition, S> states(1);
    const auto tokens = random_tokens(1024, Definition::vocabulary);
    std::vector<float> logits(Definition::output_width);
    std::size_t next = 0;
    const auto step = [&] {
      model.step(workspace, states, {&tokens[next], 1}, logits);
      next = (next + 1) % tokens.size();
    };
    // As many bytes as the parameters used per token, which includes only the selected experts of a mixture.
    const auto met = std::as_bytes(std::span<const S>(model.parameters()))
                         .first(static_cast<std::size_t>(cost<Definition>.active_parameters) * sizeof(S));
    const auto samples = interleave(report_.settings(), {step, [&] { plain_read(device, met); }});
    report_.add({name, threads, samples[0], 1 / samples[0].median(), "tok/s", {of_read(samples[0], samples[1], 0.7)}});
    profile_decode(model, name, threads, tokens, logits);
  }

  template <class S>
  void profile_decode(Model<Definition, S>& measured, const std::string& name, int threads,
                      std::span<const Token> tokens, std::span<float> logits) {
    const Model<Definition, S, profiled::Device> model(measured.parameters());
    profiled::Device device(Threads{threads});
    Workspace<Definition, S, profiled::Device> workspace(device, {1, 1});
    States<Definition, S> states(1);
    report_.add_shares(name, threads, device.profile([&] {
      for (const Token& token : tokens.first(16)) model.step(workspace, states, {&token, 1}, logits);
    }));
  }

  void train(int threads, Shape shape) {
    const auto tokens = random_tokens(shape.tokens() + 1, Definition::vocabulary);
    const TokenBatch batch{.inputs = std::span(tokens).first(tokens.size() - 1),
                           .targets = std::span(tokens).last(tokens.size() - 1),
                           .shape = shape};
    const AdamW optimizer{.learning_rate = 1e-5};
    const TrainerOptions options{.largest = shape};
    {
      cpu::Device device(Threads{threads});
      Trainer trainer(*model_, device, optimizer, Constant{}, options);
      const auto samples =
          interleave(report_.settings(), {[&] { trainer.step(batch); }, [&] { multiply_add(device); }});
      const double tokens_a_step = static_cast<double>(shape.tokens());
      report_.add(
          {"training step of " + std::to_string(shape.batch) + " x " + std::to_string(shape.length),
           threads,
           samples[0],
           tokens_a_step / samples[0].median(),
           "tok/s",
           {of_peak(device, tokens_a_step * cost<Definition>.training_flops_per_token, samples[0], samples[1], 0.35)}});
    }
    Model<Definition, float, profiled::Device> model(model_->parameters());
    profiled::Device device(Threads{threads});
    Trainer trainer(model, device, optimizer, Constant{}, options);
    report_.add_shares("training step", threads, device.profile([&] { trainer.step(batch); }));
  }

  Report& report_;
  std::unique_ptr<Model<Definition>> model_;
};

}  // namespace

void mamba_130m(Report& report) {
  report.begin_group("mamba-130m", "the shape of mamba-130m, 129 million parameters, vocabulary of 50280");
  Bench<Mamba130m>(report).run();
}

void moe_mamba_416m(Report& report) {
  report.begin_group("moe-mamba-416m", "8 blocks of width 512 with 32 experts of 1536, 416 million parameters, bytes");
  Bench<MoeMamba416m>(report).run();
}

}  // namespace benchmarks
