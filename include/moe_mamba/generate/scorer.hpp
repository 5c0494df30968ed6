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

/// How probable a model finds a text: what published figures of language models are made of.
namespace moe_mamba::inline v0_2 {

/// The log-likelihood of some tokens after others.
struct Score {
  double log_likelihood = 0;  ///< natural logarithm of the probability of all of them, in their order
  Index tokens = 0;           ///< how many there are
  bool greedy = true;         ///< whether each was the most probable one (the first of equals)

  /// exp of the mean negative log-likelihood of a token; 1 of none.
  double perplexity() const { return std::exp(-log_likelihood / static_cast<double>(std::max<Index>(tokens, 1))); }

  /// Bits for each of `bytes` bytes of text that the tokens stand for.
  double bits_per_byte(Index bytes) const {
    return -log_likelihood / (std::numbers::ln2 * static_cast<double>(std::max<Index>(bytes, 1)));
  }
};

struct ScorerOptions {
  Index chunk = 512;  ///< tokens that are read at a time
};

/// Scores texts by a language model. Nothing is allocated after construction. The model must outlive the scorer. It
/// serves one call at a time: a second one of another thread throws std::logic_error.
template <class Definition, StorageScalar S, class Backend = Cpu>
class Scorer {
  static_assert(TokenDefinition<Definition>, "a Scorer needs a LanguageModel, which predicts tokens");

 public:
  using ModelType = Model<Definition, S, Backend>;
  using Compute = compute_t<S>;

  /// On a device of its own: one thread of the Cpu, or the current CUDA device. Throws std::invalid_argument for an
  /// option out of range.
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

  /// A model that would be gone before the scorer.
  explicit Scorer(const ModelType&&, ScorerOptions = {}) = delete;
  Scorer(const ModelType&&, Backend&, ScorerOptions = {}) = delete;

  /// The score of `continuation` after `context`, as benchmarks with a choice of answers want it: log-likelihood, and
  /// whether greedy decoding would have given it. The context must have a token at least, for the first of the
  /// continuation is predicted from it; where there is none, pass the model's token for a beginning. Throws
  /// std::invalid_argument for an empty context and std::out_of_range for a token outside the vocabulary.
  Score continuation(std::span<const Token> context, std::span<const Token> continuation) {
    require(!context.empty(), "context.size()", context.size(), "1 or more tokens");
    check("context", context);
    check("continuation", continuation);
    const ExclusiveCall call(in_use_, "scorer");
    return scored(context, continuation);
  }

  /// The score of a text read from its first token to its last: all but the first are predicted from everything before
  /// them. A recurrent model needs no window for that.
  Score text(std::span<const Token> tokens) {
    require(!tokens.empty(), "tokens.size()", tokens.size(), "1 or more");
    check("tokens", tokens);
    const ExclusiveCall call(in_use_, "scorer");
    return scored(tokens.first(1), drop(tokens, 1));
  }

  /// The score of a text in windows of `length` tokens, each `stride` further on, that know nothing from before: every
  /// token but the first is predicted once, by the first window that reaches it, so that all but the first window's have
  /// length - stride tokens before them at least. This is how figures of models with a limited context are taken.
  /// Throws std::invalid_argument unless 1 <= stride < length.
  Score windows(std::span<const Token> tokens, Index length, Index stride) {
    require(!tokens.empty(), "tokens.size()", tokens.size(), "1 or more");
    require(length >= 2, "length", length, "2 or more tokens");
    require(stride >= 1 && stride < length, "stride", stride,
            [&] { return detail::range_text<Index>(1, length - 1) + ", less than the length"; });
    check("tokens", tokens);
    const ExclusiveCall call(in_use_, "scorer");
    Score total;
    std::size_t predicted = 1;  // tokens that have been, or need not be
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

  /// How many rows of logits are held at a time.
  static Index rows_of(Index chunk) { return std::clamp<Index>((Index{1} << 22) / Definition::output_width, 1, chunk); }

  static void check(const char* name, std::span<const Token> tokens) {
    require_tokens(name, tokens, 0, Definition::vocabulary);
  }

  static std::span<const Token> drop(std::span<const Token> tokens, std::size_t count) {
    return tokens.subspan(std::min(count, tokens.size()));
  }

  /// continuation() of checked tokens.
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
  Index rows_;  // of logits that are held at a time
  std::vector<Compute> logits_ = std::vector<Compute>(static_cast<std::size_t>(rows_) * width);
  std::vector<Token> inputs_;
  ExclusiveCall::Flag in_use_;
};

template <class Definition, StorageScalar S, class Backend>
Scorer(const Model<Definition, S, Backend>&, ScorerOptions = {}) -> Scorer<Definition, S, Backend>;
template <class Definition, StorageScalar S, class Backend>
Scorer(const Model<Definition, S, Backend>&, Backend&, ScorerOptions = {}) -> Scorer<Definition, S, Backend>;

}  // namespace moe_mamba::inline v0_2
