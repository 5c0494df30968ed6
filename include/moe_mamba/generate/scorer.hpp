#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/runtime/backend.hpp"

/// The probability that a model assigns to a text, as in published evaluations of language models.
namespace moe_mamba::inline v0_2 {

/// The log-likelihood of tokens, given those before them.
struct Score {
  double log_likelihood = 0;  ///< natural logarithm of the probability of the whole sequence
  Index tokens = 0;           ///< number of scored tokens
  bool greedy = true;         ///< whether each was the most probable one (the first of equals)

  /// exp of the mean negative log-likelihood per token; 1 if there are none.
  double perplexity() const { return std::exp(-log_likelihood / static_cast<double>(std::max<Index>(tokens, 1))); }

  /// Bits per byte, for tokens that represent `bytes` bytes of text.
  double bits_per_byte(Index bytes) const {
    return -log_likelihood / (std::numbers::ln2 * static_cast<double>(std::max<Index>(bytes, 1)));
  }
};

struct ScorerOptions {
  Index chunk = 512;  ///< number of tokens that are read at a time
};

/// Scores texts with a language model. Nothing is allocated after construction. The model must outlive the scorer. Only
/// one thread may call a scorer at a time; a concurrent call throws std::logic_error.
template <class Definition, StorageScalar S, class Backend = Cpu>
class Scorer {
  static_assert(TokenDefinition<Definition>, "a Scorer needs a LanguageModel, which predicts tokens");

 public:
  using ModelType = Model<Definition, S, Backend>;
  using Compute = compute_t<S>;

  /// On its own device: one thread of the Cpu, or the current CUDA device. Throws std::invalid_argument for an option
  /// out of range.
  explicit Scorer(const ModelType& model, ScorerOptions options = {})
      : model_(model), workspace_(*device_, {1, detail::checked_chunk(options.chunk)}), rows_(rows_of(options.chunk)) {
    inputs_.reserve(static_cast<std::size_t>(rows_));
  }

  /// On the caller's device, which must outlive the scorer.
  Scorer(const ModelType& model, Backend& device, ScorerOptions options = {})
      : model_(model),
        device_(device),
        workspace_(device, {1, detail::checked_chunk(options.chunk)}),
        rows_(rows_of(options.chunk)) {
    inputs_.reserve(static_cast<std::size_t>(rows_));
  }

  /// Deleted: a temporary model would be destroyed before the scorer.
  explicit Scorer(const ModelType&&, ScorerOptions = {}) = delete;
  Scorer(const ModelType&&, Backend&, ScorerOptions = {}) = delete;

  /// The score of `continuation` after `context`, as used by multiple-choice benchmarks: its log-likelihood, and
  /// whether greedy decoding would have generated it. The context must have at least one token, from which the first
  /// token of the continuation is predicted; without a context, pass the model's token for the beginning of a text.
  /// Throws std::invalid_argument for an empty context and std::out_of_range for a token outside the vocabulary.
  Score continuation(std::span<const Token> context, std::span<const Token> continuation) {
    require(!context.empty(), "context.size()", context.size(), "1 or more tokens");
    check("context", context);
    check("continuation", continuation);
    const ExclusiveCall call(in_use_, "scorer");
    return scored(context, continuation);
  }

  /// The score of a whole text: every token but the first is predicted from all tokens before it. A recurrent model
  /// needs no window for that.
  Score text(std::span<const Token> tokens) {
    require(!tokens.empty(), "tokens.size()", tokens.size(), "1 or more");
    check("tokens", tokens);
    const ExclusiveCall call(in_use_, "scorer");
    return scored(tokens.first(1), drop(tokens, 1));
  }

  /// The score of a text in windows of `length` tokens, `stride` tokens apart, each scored from an empty state. Every
  /// token but the first is predicted once, in the first window that contains it, and thus from at least length -
  /// stride tokens, except in the first window. Models with a limited context are evaluated like this. Throws
  /// std::invalid_argument unless 1 <= stride < length.
  Score windows(std::span<const Token> tokens, Index length, Index stride) {
    require(!tokens.empty(), "tokens.size()", tokens.size(), "1 or more");
    require(length >= 2, "length", length, "2 or more tokens");
    require(stride >= 1 && stride < length, "stride", stride,
            [&] { return detail::range_text<Index>(1, length - 1) + ", less than the length"; });
    check("tokens", tokens);
    const ExclusiveCall call(in_use_, "scorer");
    Score total;
    std::size_t predicted = 1;  // tokens that are predicted already, and the first
    for (std::size_t begin = 0; predicted < tokens.size(); begin += static_cast<std::size_t>(stride)) {
      const std::size_t end = std::min(tokens.size(), begin + static_cast<std::size_t>(length));
      if (end <= predicted) continue;
      const Score score = scored(tokens.subspan(begin, predicted - begin), tokens.subspan(predicted, end - predicted));
      total.log_likelihood += score.log_likelihood;
      total.tokens += score.tokens;
      total.greedy = total.greedy && score.greedy;
      predicted = end;
    }
    return total;
  }

  Backend& device() { return *device_; }

 private:
  static constexpr auto width = static_cast<std::size_t>(Definition::output_width);

  /// The number of rows of logits in memory at a time.
  static Index rows_of(Index chunk) { return std::clamp<Index>((Index{1} << 22) / Definition::output_width, 1, chunk); }

  static void check(const char* name, std::span<const Token> tokens) {
    require_tokens(name, tokens, 0, Definition::vocabulary);
  }

  static std::span<const Token> drop(std::span<const Token> tokens, std::size_t count) {
    return tokens.subspan(std::min(count, tokens.size()));
  }

  /// continuation() without checks of the tokens.
  Score scored(std::span<const Token> context, std::span<const Token> continuation) {
    states_.reset();
    Score score;
    const auto chunk = static_cast<std::size_t>(workspace_.largest().length);
    for (auto rest = context.first(context.size() - 1); !rest.empty(); rest = drop(rest, chunk)) {
      const auto part = rest.first(std::min(chunk, rest.size()));
      model_.forward_last(workspace_, part, {1, static_cast<Index>(part.size())}, last(), &states_);
    }
    // Each token is predicted from the one before it, the first from the context's last.
    Token previous = context.back();
    while (!continuation.empty()) {
      const auto count = std::min(static_cast<std::size_t>(rows_), continuation.size());
      inputs_.assign(1, previous);
      inputs_.insert(inputs_.end(), continuation.begin(),
                     continuation.begin() + static_cast<std::ptrdiff_t>(count) - 1);
      const auto rows = std::span(logits_).first(count * width);
      model_.forward(workspace_, std::span<const Token>(inputs_), {1, static_cast<Index>(count)}, rows, &states_);
      for (std::size_t i = 0; i < count; ++i) add(rows.subspan(i * width, width), continuation[i], score);
      previous = continuation[count - 1];
      continuation = drop(continuation, count);
    }
    return score;
  }

  std::span<Compute> last() { return std::span(logits_).first(width); }

  static void add(std::span<const Compute> logits, Token token, Score& score) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    std::size_t best = 0;
    for (std::size_t v = 0; v < logits.size(); ++v) {
      if (static_cast<double>(logits[v]) <= largest) continue;
      largest = static_cast<double>(logits[v]);
      best = v;
    }
    for (const Compute logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
    score.log_likelihood += static_cast<double>(logits[static_cast<std::size_t>(token)]) - largest - std::log(sum);
    score.greedy = score.greedy && best == static_cast<std::size_t>(token);
    ++score.tokens;
  }

  const ModelType& model_;
  DeviceHandle<Backend> device_;
  Workspace<Definition, S, Backend> workspace_;
  States<Definition, S, typename Backend::Memory> states_{1};
  Index rows_;  // of logits in memory at a time
  std::vector<Compute> logits_ = std::vector<Compute>(static_cast<std::size_t>(rows_) * width);
  std::vector<Token> inputs_;
  ExclusiveCall::Flag in_use_;
};

template <class Definition, StorageScalar S, class Backend>
Scorer(const Model<Definition, S, Backend>&, ScorerOptions = {}) -> Scorer<Definition, S, Backend>;
template <class Definition, StorageScalar S, class Backend>
Scorer(const Model<Definition, S, Backend>&, Backend&, ScorerOptions = {}) -> Scorer<Definition, S, Backend>;

}  // namespace moe_mamba::inline v0_2
