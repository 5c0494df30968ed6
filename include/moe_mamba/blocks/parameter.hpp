#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "moe_mamba/blocks/initializer.hpp"
#include "moe_mamba/core/error.hpp"
#include "moe_mamba/core/scalar.hpp"

/// Properties of a layer's parameters, known at compile time.
namespace moe_mamba::inline v0_2 {

/// The kind of a parameter, for the optimizer.
enum class ParameterKind {
  matrix,  ///< embeddings and heads included
  gain,
  bias,
  decay_free,      ///< anything else that is usually excluded from weight decay, such as A_log and D
  selection_bias,  ///< of a router (ops/router.hpp): has no gradient and is adjusted to its experts' loads
};

/// Which parameters weight decay applies to.
enum class Decay {
  matrices,    ///< to matrices only
  everything,  ///< to everything with a gradient, as an optimizer with one parameter group does
};

/// Whether weight decay applies to a parameter of this kind.
constexpr bool decays(ParameterKind kind, Decay decay) {
  switch (kind) {
    case ParameterKind::matrix:
      return true;
    case ParameterKind::gain:
    case ParameterKind::bias:
    case ParameterKind::decay_free:
      return decay == Decay::everything;
    case ParameterKind::selection_bias:
      return false;
  }
  return false;
}

/// A short text that can be composed at compile time: the name of a parameter.
class ParameterName {
 public:
  static constexpr std::size_t capacity = 111;

  constexpr ParameterName() = default;
  constexpr ParameterName(std::string_view text) { append(text); }
  constexpr ParameterName(const char* text) : ParameterName(std::string_view(text)) {}

  constexpr std::string_view view() const { return {text_.data(), size_}; }

  /// Names longer than `capacity` do not compile in constant expressions, and throw std::invalid_argument elsewhere.
  constexpr ParameterName& append(std::string_view text) {
    if (size_ + text.size() > capacity) name_is_longer_than_111_characters();
    for (const char character : text) text_[size_++] = character;
    return *this;
  }
  constexpr ParameterName& append(Index number) {
    if (number >= 10) append(number / 10);
    const char digit = static_cast<char>('0' + number % 10);
    return append(std::string_view(&digit, 1));
  }

 private:
  /// Not a constant expression, so the compiler's error shows its name.
  [[noreturn]] static void name_is_longer_than_111_characters() {
    detail::raise<std::invalid_argument>("a parameter's name is longer than 111 characters");
  }

  std::array<char, capacity + 1> text_{};
  std::size_t size_ = 0;
};

/// How a sum of gradients with respect to a parameter starts (Backward::begins).
enum class GradientStart {
  zero,       ///< it is cleared before the pass, which adds to it
  overwrite,  ///< the block's pass overwrites it: for experts, which are most of a model's parameters, clearing and
              ///< adding would cost two more passes over memory
};

/// One parameter: a tensor of up to three dimensions inside the one array of a model's parameters.
struct Parameter {
  ParameterName name;
  std::array<Index, 3> shape{1, 1, 1};
  int rank = 1;
  ParameterKind kind = ParameterKind::matrix;
  Initializer initializer;
  Index offset = 0;
  GradientStart gradient_start = GradientStart::zero;

  constexpr Index size() const { return shape[0] * shape[1] * shape[2]; }
};

constexpr Parameter vector_parameter(const char* name, Index size, ParameterKind kind, Initializer initializer) {
  return {name, {size, 1, 1}, 1, kind, initializer};
}
constexpr Parameter matrix_parameter(const char* name, Index rows, Index columns, Initializer initializer,
                                     ParameterKind kind = ParameterKind::matrix) {
  return {name, {rows, columns, 1}, 2, kind, initializer};
}

}  // namespace moe_mamba::inline v0_2
