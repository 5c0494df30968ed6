#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <stdexcept>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/exclusive_call.hpp"
#include "moe_mamba/core/static_check.hpp"
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/model/model.hpp"
#include "moe_mamba/model/session.hpp"

namespace moe_mamba::inline v0_2 {

namespace detail {

/// Whether Decoder::generate() accepts these arguments.
template <class... Arguments>
inline constexpr bool generates = false;
template <class Prompt, class How, class From, class... Count>
inline constexpr bool generates<Prompt, How, From, Count...> =
    std::conjunction_v<std::disjunction<std::is_convertible<Prompt, std::span<const Token>>,
                                        std::is_convertible<Prompt, std::string_view>>,
                       std::is_convertible<How, Sampling>, std::is_convertible<From, Seed>,
                       std::bool_constant<sizeof...(Count) <= 1>, std::is_convertible<Count, Index>...>;

template <class... Arguments>
struct GenerateTakes {
  static_assert(
      generates<Arguments...>,
      "generate(prompt, sampling, seed, count) takes tokens or bytes; how the next token is chosen: Greedy{}, "
      "Temperature{t}, TopKSampling{k}, TopP{p} or a Sampling; a seed, such as Seed{1}; and how many tokens, "
      "which may be left out: GenerateTakes<what was given>");
};

}  // namespace detail

struct DecoderOptions {
  Index chunk = 128;  ///< number of a prompt's tokens that are read at a time
};

/// Reads and generates text token by token, with one running state and the logits of the next token. All memory is
/// allocated in the constructor, except as documented for generate(). The model must outlive the decoder. Only one
/// thread may call a decoder at a time; a concurrent call throws std::logic_error.
template <class Definition, StorageScalar S, class Backend = Cpu>
class Decoder {
  static_assert(TokenDefinition<Definition>,
                "a Decoder needs a LanguageModel, which reads tokens; a SequenceModel takes its steps by model.step()");

 public:
  using ModelType = Model<Definition, S, Backend>;
  using Memory = typename Backend::Memory;
  using StatesType = States<Definition, S, Memory>;
  using Compute = compute_t<S>;

  /// On its own device: one thread of the Cpu, or the current CUDA device. Throws std::invalid_argument for an option
  /// out of range.
  explicit Decoder(const ModelType& model, DecoderOptions options = {})
      : model_(model),
        called_("decoder"),
        workspace_(*device_, {1, detail::checked_chunk(options.chunk)}),
        chunk_(static_cast<std::size_t>(options.chunk)) {
    take_device_memory();
  }

  /// On the caller's device, which must outlive the decoder.
  Decoder(const ModelType& model, Backend& device, DecoderOptions options = {})
      : model_(model),
        device_(device),
        called_("device"),
        workspace_(device, {1, detail::checked_chunk(options.chunk)}),
        chunk_(static_cast<std::size_t>(options.chunk)) {
    take_device_memory();
  }

  /// Deleted: a temporary model would be destroyed before the decoder.
  explicit Decoder(const ModelType&&, DecoderOptions = {}) = delete;
  Decoder(const ModelType&&, Backend&, DecoderOptions = {}) = delete;

  /// Reads tokens, in chunks of `chunk` tokens; returns the logits of the next token. Throws, leaving the decoder
  /// unchanged, std::out_of_range for a token outside the vocabulary and std::invalid_argument if there are no tokens.
  /// If an operation of a layer throws, the state is lost: reading and state() throw OrderError until restore() or
  /// reset().
  std::span<const Compute> prefill(std::span<const Token> tokens) {
    require(!tokens.empty(), "tokens.size()", tokens.size(), "1 or more");
    const ExclusiveCall call = begin_call();
    read_all("tokens", tokens, call);
    return logits();
  }

  /// Reads one token; returns the logits of the next. Throws std::out_of_range for a token outside the vocabulary.
  std::span<const Compute> step(Token token) {
    check(token);
    const ExclusiveCall call = begin_call();
    if constexpr (Memory::on_host) {
      step_on(&token, call);
    } else {
      step_on_device(token, call);
    }
    return logits();
  }

  /// The logits of the next token; meaningless until a token has been read or logits have been restored.
  std::span<const Compute> logits() const {
    if constexpr (Memory::on_host) {
      return logits_.span();
    } else {
      if (!mirrored_) device_->download(mirror_.data(), logits_.data(), mirror_.size() * sizeof(Compute));
      mirrored_ = true;
      return mirror_;
    }
  }

  /// The running state, a value that can be copied, stored and restored. On a device, waits for queued work.
  const StatesType& state() const {
    require_state();
    if constexpr (!Memory::on_host) device_->synchronize();
    return states_;
  }

  /// Continues from a saved state and its logits. Without logits, a token must be read before sampling. Throws
  /// std::invalid_argument if a size does not match.
  void restore(const StatesType& state, std::span<const Compute> logits = {}) {
    require(logits.empty() || logits.size() == logits_.size(), "logits.size()", logits.size(),
            [&] { return std::to_string(logits_.size()) + ", the vocabulary, or none"; });
    const ExclusiveCall call = begin_call();
    if constexpr (!Memory::on_host) device_->synchronize();
    states_ = state;
    has_logits_ = !logits.empty();
    if (has_logits_) logits_.write(logits);
    mirrored_ = lost_ = false;
  }

  /// Returns to the initial state, in which nothing has been read.
  void reset() {
    const ExclusiveCall call = begin_call();
    if constexpr (!Memory::on_host) device_->synchronize();
    states_.reset();
    has_logits_ = false;
    logits_.clear();
    mirrored_ = lost_ = false;
  }

  /// Calls visit(RouterReport) with the report of each mixture-of-experts layer on the last call.
  template <class Visit>
  void visit_routers(const Visit& visit) const {
    const ExclusiveCall call = begin_call();
    workspace_.visit_routers(visit);
  }

  /// Draws on a device: which, and how many there were.
  struct DeviceDraws {
    DeviceDraws(Sampling how, Seed from, Index) : sampling(how), seed(from) {}
    Sampling sampling;
    Seed seed;
    std::uint64_t position = 0;
  };
  using Draws = std::conditional_t<Memory::on_host, Sampler, DeviceDraws>;

  /// The tokens that a decoder generates, drawn on demand. Each is read back when the iterator is incremented,
  /// including the last one, so that state and logits are then those of the whole text. (A token at which a loop is
  /// left by `break` has not been read back.) If another generation has begun on the decoder, or it has no logits to
  /// continue from, the next token throws std::logic_error.
  class Generation {
   public:
    class Iterator {
     public:
      using value_type = Token;
      using difference_type = std::ptrdiff_t;
      using iterator_concept = std::input_iterator_tag;

      explicit Iterator(Generation& generation) : generation_(&generation) { generation.draw(); }
      Token operator*() const { return generation_->token_; }
      Iterator& operator++() {
        generation_->read_back();
        --generation_->left_;
        generation_->draw();
        return *this;
      }
      void operator++(int) { ++*this; }
      bool operator==(std::default_sentinel_t) const { return generation_->left_ <= 0; }

     private:
      Generation* generation_;
    };

    Generation(Decoder& decoder, Draws draws, Index count)
        : decoder_(decoder), draws_(std::move(draws)), left_(count), number_(++decoder.generations_) {}
    /// Not copyable: a copy would be a second generation on the same decoder.
    Generation(Generation&&) noexcept = default;

    Iterator begin() { return Iterator(*this); }
    std::default_sentinel_t end() const { return {}; }

   private:
    void draw() {
      if (left_ <= 0) return;
      const ExclusiveCall call = decoder_.begin_call();
      require_last();
      if (!decoder_.has_logits_) {
        detail::raise<OrderError>(
            "the decoder has been reset, or restored without logits, since generate(); allowed: read a token first, or "
            "generate() anew");
      }
      if constexpr (Memory::on_host) {
        token_ = draws_(decoder_.logits());
      } else {
        token_ = decoder_.draw(draws_);
      }
    }

    void read_back() {
      const ExclusiveCall call = decoder_.begin_call();
      require_last();
      if constexpr (Memory::on_host) {
        decoder_.step_on(&token_, call);
      } else {
        decoder_.step_on_device(token_, call);
      }
    }

    void require_last() const {
      if (number_ == decoder_.generations_) return;
      detail::raise<OrderError>(
          "another generate() has begun on this decoder since this one did; allowed: one at a time, so read one to its "
          "end first or give each a decoder of its own");
    }

    Decoder& decoder_;
    Draws draws_;
    Index left_;
    std::uint64_t number_;  // among the decoder's generations
    Token token_ = 0;
  };

  /// Reads the prompt and generates `count` tokens, without end if it is omitted. The prompt may be empty if something
  /// was read before. On the host it allocates once, for the sampler; drawing tokens does not allocate.
  Generation generate(std::span<const Token> prompt, Sampling sampling, Seed seed,
                      Index count = std::numeric_limits<Index>::max()) & {
    require(count >= 0, "count", count, "0 or more tokens");
    require(!prompt.empty() || has_logits_, "prompt.size()", prompt.size(),
            "1 or more tokens if nothing has been read yet");
    moe_mamba::check(sampling);
    Draws draws(sampling, seed, Index{Definition::vocabulary});
    const ExclusiveCall call = begin_call();
    if (!prompt.empty()) read_all("prompt", prompt, call);
    return Generation(*this, std::move(draws), count);
  }

  /// Deleted: a temporary decoder would be destroyed before the first token is drawn.
  template <class... Arguments>
  Generation generate(Arguments&&...) && = delete;

  /// The same with a prompt of bytes, for models over bytes; allocates memory for the prompt's tokens.
  Generation generate(std::string_view prompt, Sampling sampling, Seed seed,
                      Index count = std::numeric_limits<Index>::max()) & {
    std::vector<Token> tokens(prompt.size());
    std::transform(prompt.begin(), prompt.end(), tokens.begin(),
                   [](char byte) { return static_cast<Token>(static_cast<unsigned char>(byte)); });
    return generate(std::span<const Token>(tokens), sampling, seed, count);
  }

  /// Other arguments do not compile, with a message that says what generate() takes.
  template <class... Arguments>
      Generation generate(Arguments&&...) & requires(!detail::generates<Arguments...>) {
    detail::check<detail::GenerateTakes<Arguments...>>();
    return generate(std::span<const Token>(), Greedy{}, Seed{}, 0);
  }

 private:
  using SessionType = Session<Definition, S, Backend>;
  static const Passes<Definition, S, Backend>& passes() { return PassesOf<Definition, S, Backend>::get(); }

  static void check(Token token) {
    require_range(token >= 0 && token < Definition::vocabulary, "token", token,
                  [] { return detail::range_text(0, Definition::vocabulary - 1); });
  }

  ExclusiveCall begin_call() const { return ExclusiveCall(device_->in_use(), called_); }

  void take_device_memory() {
    if constexpr (!Memory::on_host) {
      mirror_.resize(logits_.size());
      token_ = Array<Token, Memory>(1);
      position_ = Array<std::uint64_t, Memory>(1);
      status_ = Array<std::uint32_t, Memory>(1);
      scratch_ = Memory(passes().sample_scratch(*device_, 1, Index{Definition::output_width}));
    }
  }

  /// Reads tokens in chunks.
  void read_all(const char* argument, std::span<const Token> tokens, const ExclusiveCall& call) {
    model_.require_parameters();
    require_tokens(argument, tokens, 0, Definition::vocabulary);
    SessionType session(workspace_, model_.parameters().data(), call);
    for (; !tokens.empty(); tokens = tokens.subspan(std::min(chunk_, tokens.size()))) {
      const auto chunk = tokens.first(std::min(chunk_, tokens.size()));
      const Shape shape{1, static_cast<Index>(chunk.size())};
      begin_reading();
      read(session, session.stage_inputs(chunk, shape), shape);
      end_reading();
    }
  }

  void step_on(const Token* token, const ExclusiveCall& call) {
    const S* const parameters = model_.parameters().data();
    SessionType session(workspace_, parameters, call);
    if (parameters != recorded_) recording_.forget();
    recorded_ = parameters;
    begin_reading();
    recording_.run(*device_, [&] { read(session, token, {1, 1}); });
    end_reading();
  }
  /// A token that was drawn on the device is already there.
  void step_on_device(const Token& token, const ExclusiveCall& call) {
    if (on_device_ != token) device_->upload(token_.data(), &token, sizeof token);
    on_device_ = token;
    step_on(token_.data(), call);
  }
  void begin_reading() {
    require_state();
    lost_ = true;  // until end_reading()
    mirrored_ = has_logits_ = false;
    workspace_.invalidate();
  }
  void end_reading() {
    lost_ = false;
    has_logits_ = true;
  }
  void require_state() const {
    if (lost_)
      detail::raise<OrderError>("the decoder's state was lost as a call failed; allowed: restore() or reset()");
  }
  /// Reads tokens in the device's memory, and leaves the logits there.
  void read(SessionType& session, const Token* tokens, Shape shape) {
    session.body({shape, tokens, nullptr, states_.view()});
    session.outputs(shape, {shape.length - 1, 1, 1}, logits_.data());
  }

  /// The next token, drawn on the device that has the logits. Throws as a Sampler does.
  Token draw(DeviceDraws& draws) {
    on_device_ = -1;
    device_->upload(position_.data(), &draws.position, sizeof draws.position);
    passes().sample(*device_, {.sampling = draws.sampling,
                               .logits = matrix(std::as_const(logits_).data(), 1, Index{Definition::output_width}),
                               .seed = draws.seed,
                               .stream = 0,
                               .positions = position_.data(),
                               .tokens = token_.data(),
                               .status = status_.data(),
                               .scratch = Arena(scratch_.data())});
    Token token = 0;
    device_->download(&token, token_.data(), sizeof token);
    on_device_ = token;
    if (token < 0) {
      detail::raise<std::runtime_error>(
          "a logit is NaN or plus infinity, or all are minus infinity; allowed: finite numbers and minus infinity, one "
          "of them finite");
    }
    if (draws.sampling.temperature != 0) ++draws.position;
    return token;
  }

  const ModelType& model_;
  DeviceHandle<Backend> device_;
  const char* called_;  // the name for errors of concurrent calls
  Workspace<Definition, S, Backend> workspace_;
  StatesType states_{1};
  typename Backend::Recording recording_;  // of step()
  const S* recorded_ = nullptr;            // the parameters that it uses
  Array<Compute, Memory> logits_{static_cast<std::size_t>(Definition::output_width)};
  // If the device's memory is not the host's: a copy of the logits for the host, and the memory that drawing needs.
  mutable std::vector<Compute> mirror_;
  mutable bool mirrored_ = false;
  Array<Token, Memory> token_;
  Token on_device_ = -1;  // the value of token_
  Array<std::uint64_t, Memory> position_;
  Array<std::uint32_t, Memory> status_;
  Memory scratch_;
  std::size_t chunk_;
  bool has_logits_ = false;
  bool lost_ = false;              // whether a call failed halfway, so that states_ are invalid
  std::uint64_t generations_ = 0;  // number begun so far
};

template <class Definition, StorageScalar S, class Backend>
Decoder(const Model<Definition, S, Backend>&, DecoderOptions = {}) -> Decoder<Definition, S, Backend>;
template <class Definition, StorageScalar S, class Backend>
Decoder(const Model<Definition, S, Backend>&, Backend&, DecoderOptions = {}) -> Decoder<Definition, S, Backend>;

}  // namespace moe_mamba::inline v0_2
