/// A public checkpoint goes on with a prompt. See --help.
#include <charconv>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>

#include "generate/models.hpp"
#include "moe_mamba/families/any_model.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "moe_mamba/tokenizers.hpp"

#if defined(GENERATE_CUDA)
#include "moe_mamba/cuda.hpp"
#endif

namespace {

using namespace moe_mamba;

constexpr const char* help_text = R"(usage: generate CHECKPOINT_FOLDER [options]

Opens a folder with config.json, model.safetensors and tokenizer.json, as a download has them, and goes on with a prompt.
Known are the Mamba models of 130M, 370M, 790M, 1.4B and 2.8B parameters; parameters are kept as bfloat16. Without a
tokenizer.json bytes are tokens.

  --prompt TEXT      what to go on with (Mamba is)
  --tokens N         how many tokens to write (100)
  --temperature T    0 takes the most probable token each time (0.8)
  --top-p P          draws from the most probable tokens that together reach P (0.95)
  --seed N           of the draws (1)
  --threads N        threads (1)
  --links            follow symbolic links, as in a download cache that you trust
  --cuda             on a CUDA device
  --help             this text
)";

struct Options {
  std::filesystem::path folder;
  std::string prompt = "Mamba is";
  Index tokens = 100;
  TopP sampling{0.95f, 0.8f};
  std::uint64_t seed = 1;
  int threads = 1;
  bool links = false, cuda = false, help = false;
};

template <class Number>
Number number(const std::string& option, const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc{} && end == text.data() + text.size() && !text.empty(), option.c_str(), text, "a number");
  return value;
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const auto value = [&] {
      require(i + 1 < count, name.c_str(), "without a value", "one value, as in the text of --help");
      return std::string(arguments[++i]);
    };
    if (name == "--prompt") {
      options.prompt = value();
    } else if (name == "--tokens") {
      options.tokens = number<Index>(name, value());
    } else if (name == "--temperature") {
      options.sampling.temperature = number<float>(name, value());
    } else if (name == "--top-p") {
      options.sampling.p = number<float>(name, value());
    } else if (name == "--seed") {
      options.seed = number<std::uint64_t>(name, value());
    } else if (name == "--threads") {
      options.threads = number<int>(name, value());
    } else if (name == "--links") {
      options.links = true;
    } else if (name == "--cuda") {
      options.cuda = true;
    } else if (name == "--help" || name == "-h") {
      options.help = true;
    } else {
      require(!name.starts_with("-"), "the option", name, "those that --help shows");
      require(options.folder.empty(), "a second folder", name, "one checkpoint's folder");
      options.folder = name;
    }
  }
  require(options.help || !options.folder.empty(), "the folder", "missing", "that of a checkpoint");
  return options;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Writes to the standard output as it goes.
template <class Decoding, class T>
void write(Decoding& decoder, const T& tokenizer, const Options& options) {
  const auto prompt = tokenizer.encode(options.prompt);
  std::cout << options.prompt << std::flush;
  StreamDecoder<T> text(tokenizer);
  const double begin = seconds();
  double first = begin;
  Index written = 0;
  decoder.generate(prompt, options.sampling, Seed{options.seed}, options.tokens, [&](Token token) {
    if (written++ == 0) first = seconds();
    try {
      std::cout << text.push(token) << std::flush;
    } catch (const std::out_of_range&) {
      std::cout << "\uFFFD";  // models have more places for tokens than tokenizers have tokens
    }
    return true;
  });
  std::cout << text.finish() << '\n';
  const double end = seconds();
  std::cerr << prompt.size() << " tokens read and the first one drawn in " << first - begin << " s, " << written
            << " written, " << static_cast<double>(written - 1) / std::max(end - first, 1e-9) << " a second\n";
}

template <class Backend>
void run(Backend& device, const Options& options) {
  using namespace generate;
  using Any = AnyModel<bfloat16, Backend, Mamba130M, Mamba370M, Mamba790M, Mamba1400M, Mamba2800M, Tiny>;
  const Any model(Pretrained{options.folder, options.links ? Links::followed : Links::refused});
  const auto decoder = model.decoder(device);
  const auto tokenizer_file = options.folder / "tokenizer.json";
  if (std::filesystem::exists(tokenizer_file)) {
    const auto tokenizer = load_tokenizer(tokenizer_file);
    require(tokenizer.vocabulary() <= decoder->vocabulary(), "the tokenizer's vocabulary", tokenizer.vocabulary(),
            [&] { return std::to_string(decoder->vocabulary()) + " or fewer, as the model has"; });
    write(*decoder, tokenizer, options);
  } else {
    write(*decoder, ByteTokenizer{}, options);
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    const Options options = parse(count, arguments);
    if (options.help) {
      std::cout << help_text;
    } else if (!options.cuda) {
      Cpu cpu(Threads{options.threads});
      run(cpu, options);
    } else {
#if defined(GENERATE_CUDA)
      Cuda device;
      run(device, options);
#else
      throw std::invalid_argument(
          "--cuda is given; allowed: nothing of the kind, as this program was built where no CUDA Toolkit was found");
#endif
    }
    return 0;
  } catch (const std::exception& problem) {
    std::cerr << "generate: " << problem.what() << '\n';
    return 1;
  }
}
