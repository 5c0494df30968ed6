#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <span>

#include "moe_mamba/generate/decoder.hpp"

namespace moe_mamba::inline v0_2 {

/// A type-erased decoder, for code that does not know the model's definition. It has the calls of a Decoder, each as
/// one virtual call, whose cost is negligible next to a model's step; errors are those of Decoder.
template <ComputeScalar C>
class AnyDecoder {
 public:
  virtual ~AnyDecoder() = default;

  /// The size of the vocabulary, which is the number of logits.
  virtual Index vocabulary() const = 0;

  virtual std::span<const C> prefill(std::span<const Token> tokens) = 0;
  virtual std::span<const C> step(Token token) = 0;
  virtual std::span<const C> logits() const = 0;
  virtual void reset() = 0;

  /// Reads the prompt and generates up to `count` tokens, while take(token) returns true. The last token that was taken
  /// has been read back, one for which it returned false has not.
  virtual void generate(std::span<const Token> prompt, Sampling sampling, Seed seed, Index count,
                        const std::function<bool(Token)>& take) = 0;
};

namespace detail {

template <class Definition, StorageScalar S, class Backend>
class DecoderOf final : public AnyDecoder<compute_t<S>> {
 public:
  template <class... Arguments>
  explicit DecoderOf(Arguments&&... arguments) : decoder_(arguments...) {}

  Index vocabulary() const override { return Definition::vocabulary; }
  std::span<const compute_t<S>> prefill(std::span<const Token> tokens) override { return decoder_.prefill(tokens); }
  std::span<const compute_t<S>> step(Token token) override { return decoder_.step(token); }
  std::span<const compute_t<S>> logits() const override { return decoder_.logits(); }
  void reset() override { decoder_.reset(); }
  void generate(std::span<const Token> prompt, Sampling sampling, Seed seed, Index count,
                const std::function<bool(Token)>& take) override {
    for (const Token token : decoder_.generate(prompt, sampling, seed, count)) {
      if (!take(token)) break;
    }
  }

 private:
  Decoder<Definition, S, Backend> decoder_;
};

}  // namespace detail

/// A type-erased Decoder, on its own device or on the caller's. The model and the caller's device must outlive it.
template <class Definition, StorageScalar S, class Backend>
std::unique_ptr<AnyDecoder<compute_t<S>>> make_decoder(const Model<Definition, S, Backend>& model,
                                                       DecoderOptions options = {}) {
  return std::make_unique<detail::DecoderOf<Definition, S, Backend>>(model, options);
}
template <class Definition, StorageScalar S, class Backend>
std::unique_ptr<AnyDecoder<compute_t<S>>> make_decoder(const Model<Definition, S, Backend>& model, Backend& device,
                                                       DecoderOptions options = {}) {
  return std::make_unique<detail::DecoderOf<Definition, S, Backend>>(model, device, options);
}

}  // namespace moe_mamba::inline v0_2
