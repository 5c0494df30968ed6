#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/io/safetensors_header.hpp"

/// A small JSON value as a tree, and the way into it that names the field where something is not as it should be.
namespace moe_mamba::detail {

struct JsonMember;

struct JsonValue {
  enum class Kind { Null, Boolean, Number, String, Array, Object };
  Kind kind = Kind::Null;
  bool boolean = false;
  std::optional<std::uint64_t> integer;  // of a number that is one, from 0
  std::string text;                      // of a string; of a number as it was written
  std::vector<JsonValue> elements;
  std::vector<JsonMember> members;

  const JsonValue* find(std::string_view name) const;
  std::string description() const;
};

struct JsonMember {
  std::string name;
  JsonValue value;
};

inline const JsonValue* JsonValue::find(std::string_view name) const {
  for (const JsonMember& member : members) {
    if (member.name == name) return &member.value;
  }
  return nullptr;
}

inline std::string JsonValue::description() const {
  switch (kind) {
    case Kind::Null:
      return "null";
    case Kind::Boolean:
      return boolean ? "true" : "false";
    case Kind::Number:
      return text.substr(0, 40);
    case Kind::String:
      return in_quotes(text);
    case Kind::Array:
      return "an array";
    default:
      return "an object";
  }
}

/// A value of a file with the way to it, as in `decoder.decoders[2].content`. Everything wrong is a std::runtime_error
/// that names file, field, value and what is allowed. A field that is not there counts as null.
class JsonField {
 public:
  JsonField(const std::string& file, std::string path, const JsonValue* value)
      : file_(&file), path_(std::move(path)), value_(value) {}

  const std::string& path() const { return path_; }

  bool is_null() const { return value_ == nullptr || value_->kind == JsonValue::Kind::Null; }
  bool is_object() const { return kind() == JsonValue::Kind::Object; }

  [[noreturn]] void refuse(const std::string& allowed) const { refuse(description(), allowed); }
  [[noreturn]] void refuse(const std::string& value, const std::string& allowed) const {
    throw_content_error(*file_, path_, value, allowed);
  }

  /// A member of an object.
  JsonField operator[](std::string_view name) const {
    if (!is_object()) refuse("an object");
    return {*file_, path_.empty() ? std::string(name) : path_ + '.' + std::string(name), value_->find(name)};
  }

  /// The elements of an array.
  std::vector<JsonField> elements() const {
    if (kind() != JsonValue::Kind::Array) refuse("an array");
    std::vector<JsonField> fields;
    fields.reserve(value_->elements.size());
    for (const JsonValue& element : value_->elements) {
      fields.emplace_back(*file_, path_ + '[' + std::to_string(fields.size()) + ']', &element);
    }
    return fields;
  }

  const std::string& string() const {
    if (kind() != JsonValue::Kind::String) refuse("a string");
    return value_->text;
  }
  std::string string_or(const std::string& otherwise) const { return is_null() ? otherwise : string(); }

  bool boolean() const {
    if (kind() != JsonValue::Kind::Boolean) refuse("true or false");
    return value_->boolean;
  }
  bool boolean_or(bool otherwise) const { return is_null() ? otherwise : boolean(); }

  std::uint64_t integer(std::uint64_t most) const {
    if (kind() != JsonValue::Kind::Number || !value_->integer || *value_->integer > most) {
      refuse("an integer from 0 to " + std::to_string(most));
    }
    return *value_->integer;
  }

  /// A number that must be 0, as it stands for something that is not supported.
  void require_zero_or_null(const std::string& allowed) const {
    if (is_null()) return;
    if (kind() != JsonValue::Kind::Number || value_->text.find_first_not_of("0.") != std::string::npos) refuse(allowed);
  }

  /// One of several strings, by its place among them.
  std::size_t choice(std::initializer_list<const char*> names) const {
    std::string allowed;
    std::size_t index = 0;
    for (const char* name : names) {
      if (kind() == JsonValue::Kind::String && value_->text == name) return index;
      allowed += (index++ == 0 ? "" : ", ") + std::string(name);
    }
    refuse(allowed);
  }

 private:
  JsonValue::Kind kind() const { return value_ == nullptr ? JsonValue::Kind::Null : value_->kind; }
  std::string description() const { return value_ == nullptr ? "missing" : value_->description(); }

  const std::string* file_;
  std::string path_;
  const JsonValue* value_;
};

/// Builds a tree from the parser's events, within bounds: so deep and of so many values that no file can use up the
/// stack or many times its own size of memory.
class JsonBuilder {
 public:
  static constexpr std::size_t depth_limit = 32;
  static constexpr std::size_t member_limit = 512;
  static constexpr std::size_t value_limit = 1u << 20;

  explicit JsonBuilder(const std::string& file) : file_(file) {}

  std::size_t depth() const { return open_.size(); }
  /// The name of the member that comes next, of the innermost object.
  const std::string& name() const { return names_.back(); }
  JsonValue take() { return std::move(root_); }

  void key(const std::string& name) {
    if (open_.back()->find(name) != nullptr) throw_content_error(file_, path(name), "there twice", "each name once");
    // Looking through the members for a name must stay cheap.
    if (open_.back()->members.size() == member_limit) {
      throw_content_error(file_, path(name), "one member more", "512 members in an object");
    }
    names_.back() = name;
  }

  void add(JsonValue value) { place(std::move(value)); }

  void open(JsonValue::Kind kind) {
    if (depth() == depth_limit) {
      throw_content_error(file_, "the nesting in " + (names_.empty() ? "it" : names_.front()), "deeper than 32", "32");
    }
    JsonValue value;
    value.kind = kind;
    JsonValue* placed = place(std::move(value));
    open_.push_back(placed);
    names_.emplace_back();
  }

  void close() {
    open_.pop_back();
    names_.pop_back();
  }

  /// Of a member of the innermost object.
  std::string path(const std::string& member) const {
    std::string text;
    for (std::size_t i = 0; i + 1 < names_.size(); ++i) {
      if (!names_[i].empty()) text += (text.empty() ? "" : ".") + names_[i].substr(0, 100);
    }
    return text + (text.empty() ? "" : ".") + member.substr(0, 100);
  }

 private:
  JsonValue* place(JsonValue value) {
    if (++values_ > value_limit) throw_content_error(file_, "the number of values", "larger", "1048576 and vocabulary");
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    JsonValue& parent = *open_.back();
    // Pointers to what is open stay valid: only the innermost one gets new elements.
    if (parent.kind == JsonValue::Kind::Array) return &parent.elements.emplace_back(std::move(value));
    return &parent.members.emplace_back(JsonMember{names_.back(), std::move(value)}).value;
  }

  const std::string& file_;
  JsonValue root_;
  std::vector<JsonValue*> open_;
  std::vector<std::string> names_;
  std::size_t values_ = 0;
};

}  // namespace moe_mamba::detail
