#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include "moe_mamba/core/check.hpp"

/// Command-line arguments: files and folders, "--option value", "--option=value", "--flag"; after "--" only files and folders.
namespace support {

/// A number from lowest to highest. Throws std::invalid_argument that says what is allowed.
template <class Number>
Number number(const std::string& option, const std::string& text, Number lowest, Number highest, const char* allowed) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool ok = error == std::errc{} && end == text.data() + text.size() && value >= lowest && value <= highest;
  moe_mamba::require(ok, option.c_str(), text.empty() ? "empty" : text, allowed);
  return value;
}

class Arguments {
 public:
  Arguments(int count, char** arguments) : count_(count), arguments_(arguments) {}

  /// Goes to the next argument; false after the last one. Throws std::invalid_argument for an empty argument, and for a value
  /// given to the option before although that is a flag.
  bool next() {
    moe_mamba::require(!attached_, name_.c_str(), attached_.value_or(""), "no value");
    if (++at_ >= count_) return false;
    name_ = arguments_[at_];
    moe_mamba::require(!name_.empty(), "a file or folder", "empty", "the path of a file or folder");
    if (name_ == "--" && !only_paths_) {
      only_paths_ = true;
      return next();
    }
    if (const auto equals = name_.find('='); !is_path() && equals != std::string::npos) {
      attached_ = name_.substr(equals + 1);
      name_.resize(equals);
    }
    return true;
  }

  /// Whether the current argument is a file or folder; otherwise it is an option.
  bool is_path() const { return only_paths_ || name_.size() < 2 || name_[0] != '-'; }
  const std::string& name() const { return name_; }

  /// The value of the current option. Throws std::invalid_argument if there is none.
  std::string value() {
    if (attached_) return *std::exchange(attached_, std::nullopt);
    moe_mamba::require(at_ + 1 < count_, name_.c_str(), "without a value", "one value, as shown by --help");
    return arguments_[++at_];
  }

  /// The value as a number, as of number().
  template <class Number>
  Number value(Number lowest, Number highest, const char* allowed) {
    return number<Number>(name_, value(), lowest, highest, allowed);
  }

 private:
  int count_ = 0, at_ = 0;
  char** arguments_ = nullptr;
  bool only_paths_ = false;
  std::string name_;
  std::optional<std::string> attached_;
};

}  // namespace support
