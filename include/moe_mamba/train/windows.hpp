#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "moe_mamba/core/check.hpp"
#include "moe_mamba/core/random.hpp"
#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/train/batch.hpp"

/// Batches of windows of a text: tokens, and as targets the tokens one position later.
///
///   for (auto batch : windows(text, Length{256}, Batch{32}, Seed{1}))              random windows, without end
///   for (auto batch : sequential_windows(text, Length{256}, Batch{32}))            the text in order, repeatedly
///
/// The text is borrowed and has bytes or tokens; a byte is a token in 0 … 255, whatever the signedness of char. A batch is
/// stored in buffers of the object and valid until the next one is drawn; drawing allocates nothing. The position is the
/// number of batches drawn: windows restored to a saved state() continue as if never interrupted.
namespace moe_mamba::inline v0_2 {

/// Tokens in a window.
struct Length {
  Index value = 0;
};

/// Windows in a batch.
struct Batch {
  Index value = 0;
};

/// What text may consist of: bytes, or tokens as integers of up to 32 bits.
template <class T>
concept TextSymbol =
    (std::integral<T> && !std::same_as<T, bool> && sizeof(T) <= sizeof(Token)) || std::same_as<T, std::byte>;

/// How windows follow each other.
enum class WindowsOrder { unknown, random, sequential };

/// The state of windows, which a checkpoint stores.
struct WindowsState {
  std::uint64_t seed = 0;
  std::uint64_t position = 0;  ///< batches drawn

  /// The windows that the position belongs to. restore() refuses a state of others, as they draw other batches; fields that
  /// are 0 or unknown are not compared, nor is the content of the text.
  WindowsOrder order = WindowsOrder::unknown;
  Index tokens = 0;  ///< of the text
  Index length = 0;  ///< tokens in a window
  Index batch = 0;   ///< windows in a batch

  friend constexpr bool operator==(const WindowsState&, const WindowsState&) = default;
};

namespace detail {

template <TextSymbol Symbol>
constexpr Token token_of(Symbol symbol) {
  if constexpr (sizeof(Symbol) == 1) {
    return static_cast<Token>(static_cast<unsigned char>(symbol));
  } else {
    return static_cast<Token>(symbol);
  }
}

/// Common base of both kinds of windows: the borrowed text, the buffers, and the range that draws from `Derived`.
template <class Derived, TextSymbol Symbol>
class WindowsBase {
 public:
  class Iterator {
   public:
    using value_type = TokenBatch;
    using difference_type = std::ptrdiff_t;
    using iterator_concept = std::input_iterator_tag;

    explicit Iterator(Derived& windows) : windows_(&windows), batch_(windows.next()) {}
    const TokenBatch& operator*() const { return batch_; }
    Iterator& operator++() {
      batch_ = windows_->next();
      return *this;
    }
    void operator++(int) { ++*this; }

   private:
    Derived* windows_;
    TokenBatch batch_;
  };

  /// Draws a batch.
  Iterator begin() { return Iterator(static_cast<Derived&>(*this)); }
  std::unreachable_sentinel_t end() const { return {}; }

  Shape shape() const { return shape_; }
  std::span<const Symbol> text() const { return text_; }

 protected:
  WindowsBase(std::span<const Symbol> text, Length length, Batch batch)
      : text_(text), shape_{batch.value, length.value} {
    constexpr Index limit = Index{1} << 40;  // far beyond any memory, and products stay in range
    require(length.value >= 1 && length.value <= limit, "length", length.value, "an integer from 1 to 2^40");
    require(batch.value >= 1 && batch.value <= limit / length.value, "batch", batch.value,
            [&] { return "an integer from 1 to " + std::to_string(limit / length.value) + ", 2^40 tokens"; });
    require(length.value < size(), "text length", size(), [&] {
      return "at least " + std::to_string(length.value + 1) + " tokens: a window and the token after it";
    });
  }

  Index size() const { return static_cast<Index>(text_.size()); }

  void allocate() {
    inputs_.resize(static_cast<std::size_t>(shape_.tokens()));
    targets_.resize(inputs_.size());
  }

  /// Throws std::out_of_range if the window at `start` ends with a negative target, which a trainer would treat as masked.
  /// (Other negative tokens are also inputs, which a trainer refuses.)
  void check_last_target([[maybe_unused]] Index start) const {
    if constexpr (sizeof(Symbol) > 1) {
      const Index last = start + shape_.length;
      const Symbol symbol = text_[static_cast<std::size_t>(last)];
      if (token_of(symbol) >= 0) return;
      const std::string element = "text[" + std::to_string(last) + "]";
      require_range(false, element.c_str(), static_cast<std::int64_t>(symbol),
                    range_text<Token>(0, std::numeric_limits<Token>::max()));
    }
  }

  /// Copies the window at `start` to row `row` of the batch.
  void fill(Index row, Index start) {
    const Symbol* symbols = text_.data() + start;
    Token* inputs = inputs_.data() + row * shape_.length;
    Token* targets = targets_.data() + row * shape_.length;
    for (Index i = 0; i < shape_.length; ++i) {
      inputs[i] = token_of(symbols[i]);
      targets[i] = token_of(symbols[i + 1]);
    }
  }

  TokenBatch filled(bool continues) const { return {inputs_, targets_, shape_, continues}; }

  WindowsState state_at(WindowsOrder order, std::uint64_t seed, std::uint64_t position) const {
    return {seed, position, order, size(), shape_.length, shape_.batch};
  }

  /// Throws std::invalid_argument for a state of other windows.
  void check_state(WindowsOrder order, const WindowsState& state) const {
    const auto name = [](WindowsOrder one) { return one == WindowsOrder::random ? "random" : "sequential"; };
    const auto own = [](const std::string& value) {
      return [value] { return value + ", as here, or WindowsState{seed, position} to go on all the same"; };
    };
    require(state.order == WindowsOrder::unknown || state.order == order, "state.order", name(state.order),
            own(name(order)));
    require(state.tokens == 0 || state.tokens == size(), "state.tokens", state.tokens, own(std::to_string(size())));
    require(state.length == 0 || state.length == shape_.length, "state.length", state.length,
            own(std::to_string(shape_.length)));
    require(state.batch == 0 || state.batch == shape_.batch, "state.batch", state.batch,
            own(std::to_string(shape_.batch)));
  }

 private:
  std::span<const Symbol> text_;
  Shape shape_;
  std::vector<Token> inputs_, targets_;
};

}  // namespace detail

/// Windows that start at random positions of the text, all equally likely.
template <TextSymbol Symbol>
class Windows : public detail::WindowsBase<Windows<Symbol>, Symbol> {
 public:
  /// Throws std::invalid_argument for a length or batch below 1 and for a text of `length` tokens or fewer.
  Windows(std::span<const Symbol> text, Length length, Batch batch, Seed seed = {})
      : detail::WindowsBase<Windows<Symbol>, Symbol>(text, length, batch), seed_(seed.value) {
    this->allocate();
  }

  /// The next batch, which depends only on text, shape, seed and position. Throws std::out_of_range, with nothing changed, if
  /// the last target of a window is negative.
  TokenBatch next() {
    // Each batch has its own stream of random numbers, so that it does not depend on how many the previous ones used.
    Random random(Seed{seed_}, (std::uint64_t{0x77696e64} << 32) + position_);
    Random same = random;
    const auto starts = static_cast<std::uint64_t>(this->size() - this->shape().length);
    for (Index row = 0; row < this->shape().batch; ++row)
      this->check_last_target(static_cast<Index>(same.below(starts)));
    for (Index row = 0; row < this->shape().batch; ++row) this->fill(row, static_cast<Index>(random.below(starts)));
    ++position_;
    return this->filled(false);
  }

  WindowsState state() const { return this->state_at(WindowsOrder::random, seed_, position_); }
  /// Continues from a state, which may have another seed. Throws std::invalid_argument, with nothing changed, for a state of
  /// other windows.
  void restore(const WindowsState& state) {
    this->check_state(WindowsOrder::random, state);
    seed_ = state.seed;
    position_ = state.position;
  }

 private:
  std::uint64_t seed_, position_ = 0;
};

/// Windows that follow each other, for truncated back-propagation through time: the text is cut into as many equal
/// parts as the batch has rows, and each row goes through its part window by window. After the last full window all
/// rows start again; the first batch of a pass has `continues` false, all others true. The tokens after the last full window
/// of a part, fewer than a window, are not used.
template <TextSymbol Symbol>
class SequentialWindows : public detail::WindowsBase<SequentialWindows<Symbol>, Symbol> {
 public:
  /// Throws std::invalid_argument for a length or batch below 1 and for a text shorter than one window per row.
  SequentialWindows(std::span<const Symbol> text, Length length, Batch batch)
      : detail::WindowsBase<SequentialWindows<Symbol>, Symbol>(text, length, batch),
        part_((this->size() - 1) / batch.value) {
    require(part_ >= length.value, "text length", this->size(), [&] {
      return "at least " + std::to_string(length.value * batch.value + 1) + " tokens: a window for each of " +
             std::to_string(batch.value) + " rows and the token after it";
    });
    this->allocate();
  }

  /// The next batch. Throws std::out_of_range, with nothing changed, if the last target of a window is negative.
  TokenBatch next() {
    const auto window = static_cast<Index>(position_ % static_cast<std::uint64_t>(batches_per_pass()));
    const auto start = [&](Index row) { return row * part_ + window * this->shape().length; };
    for (Index row = 0; row < this->shape().batch; ++row) this->check_last_target(start(row));
    for (Index row = 0; row < this->shape().batch; ++row) this->fill(row, start(row));
    ++position_;
    return this->filled(window != 0);
  }

  /// Number of batches in a pass over the text.
  Index batches_per_pass() const { return part_ / this->shape().length; }

  WindowsState state() const { return this->state_at(WindowsOrder::sequential, 0, position_); }
  /// Continues from a state. Throws std::invalid_argument, with nothing changed, for a state of other windows.
  void restore(const WindowsState& state) {
    this->check_state(WindowsOrder::sequential, state);
    position_ = state.position;
  }

 private:
  Index part_;  // tokens of a row's part of the text
  std::uint64_t position_ = 0;
};

namespace detail {

template <class Text>
concept ContiguousText = requires(Text& text) {
  std::span(text);
};

template <ContiguousText Text>
auto borrowed(Text&& text) {
  static_assert(std::is_lvalue_reference_v<Text> || std::ranges::enable_borrowed_range<std::remove_cv_t<Text>>,
                "windows borrow their text: give them a variable that lives as long as they do, not a temporary");
  const std::span symbols(text);
  using Symbol = std::remove_cv_t<typename decltype(symbols)::element_type>;
  static_assert(TextSymbol<Symbol>, "text consists of bytes or of integers of up to 32 bits");
  return std::span<const Symbol>(symbols);
}

}  // namespace detail

/// Random windows of a vector, array, span or string of bytes or tokens.
template <detail::ContiguousText Text>
auto windows(Text&& text, Length length, Batch batch, Seed seed = {}) {
  return Windows(detail::borrowed(std::forward<Text>(text)), length, batch, seed);
}

/// Sequential windows of the same.
template <detail::ContiguousText Text>
auto sequential_windows(Text&& text, Length length, Batch batch) {
  return SequentialWindows(detail::borrowed(std::forward<Text>(text)), length, batch);
}

}  // namespace moe_mamba::inline v0_2
