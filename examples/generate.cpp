/// Continues a prompt with a public checkpoint. See --help.
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

Loads a folder with config.json, model.safetensors and tokenizer.json, as downloaded, and continues a prompt. Supported
are the Mamba models with 130M, 370M, 790M, 1.4B and 2.8B parameters; parameters are stored as bfloat16. Without
tokenizer.json, each byte is a token.

  --prompt TEXT      text to continue (Mamba is)
  --tokens N         number of tokens to generate (100)
  --temperature T    sampling temperature; 0 is greedy (0.8)
  --top-p P          sample from the most probable tokens with total probability P (0.95)
  --seed N           seed for sampling (1)
  --threads N        number of threads (1)
  --links            follow symbolic links, as in a trusted download cache
  --cuda             run on a CUDA device
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
      require(i + 1 < count, name.c_str(), "without a value", "one value, as shown by --help");
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
      require(!name.starts_with("-"), "the option", name, "those shown by --help");
      require(options.folder.empty(), "a second folder", name, "one checkpoint folder");
      options.folder = name;
    }
  }
  require(options.help || !options.folder.empty(), "the folder", "missing", "a checkpoint folder");
  return options;
}

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// Generates text and prints it token by token.
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
      std::cout << "\uFFFD";  // the model's vocabulary is padded beyond the tokenizer's
    }
    return true;
  });
  std::cout << text.finish() << '\n';
  const double end = seconds();
  std::cerr << prompt.size() << " tokens read and the first one generated in " << first - begin << " s, " << written
            << " generated, " << static_cast<double>(written - 1) / std::max(end - first, 1e-9) << " per second\n";
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
            [&] { return std::to_string(decoder->vocabulary()) + " or fewer, the model's vocabulary"; });
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
      throw std::invalid_argument("--cuda needs a build with the CUDA Toolkit; this program was built without it");
#endif
    }
    return 0;
  } catch (const std::exception& problem) {
    std::cerr << "generate: " << problem.what() << '\n';
    return 1;
  }
}
