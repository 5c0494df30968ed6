#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/io/json.hpp"

/// Access to a JSON file with errors that name the field.
namespace moe_mamba::inline v0_2::detail {

/// A value of a file with its path, such as `decoder.decoders[2].content`. Anything invalid throws a std::runtime_error
/// that names file, field, value and what is allowed. A missing field counts as null.
class JsonField {
 public:
  JsonField(const std::string& file, std::string path, const JsonValue* value)
      : file_(&file), path_(std::move(path)), value_(value) {}

  const std::string& path() const { return path_; }

  bool is_null() const { return value_ == nullptr || value_->kind == JsonValue::Kind::null; }
  bool is_object() const { return kind() == JsonValue::Kind::object; }

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
    if (kind() != JsonValue::Kind::array) refuse("an array");
    std::vector<JsonField> fields;
    fields.reserve(value_->elements.size());
    for (const JsonValue& element : value_->elements) {
      fields.emplace_back(*file_, path_ + '[' + std::to_string(fields.size()) + ']', &element);
    }
    return fields;
  }

  const std::string& string() const {
    if (kind() != JsonValue::Kind::string) refuse("a string");
    return value_->string;
  }
  std::string string_or(const std::string& otherwise) const { return is_null() ? otherwise : string(); }

  bool boolean() const {
    if (kind() != JsonValue::Kind::boolean) refuse("true or false");
    return value_->boolean;
  }
  bool boolean_or(bool otherwise) const { return is_null() ? otherwise : boolean(); }

  std::uint64_t integer(std::int64_t most) const {
    if (kind() != JsonValue::Kind::integer || value_->integer < 0 || value_->integer > most) {
      refuse("an integer from 0 to " + std::to_string(most));
    }
    return static_cast<std::uint64_t>(value_->integer);
  }

  /// A number that must be 0, because any other value is not supported.
  void require_zero_or_null(const std::string& allowed) const {
    if (is_null()) return;
    const bool is_number = kind() == JsonValue::Kind::integer || kind() == JsonValue::Kind::number;
    if (!is_number || value_->number != 0) refuse(allowed);
  }

  /// The index of a string among several allowed ones.
  std::size_t choice(std::initializer_list<const char*> names) const {
    std::string allowed;
    std::size_t index = 0;
    for (const char* name : names) {
      if (kind() == JsonValue::Kind::string && value_->string == name) return index;
      allowed += (index++ == 0 ? "" : ", ") + std::string(name);
    }
    refuse(allowed);
  }

 private:
  JsonValue::Kind kind() const { return value_ == nullptr ? JsonValue::Kind::null : value_->kind; }
  std::string description() const { return value_ == nullptr ? "missing" : value_->text(); }

  const std::string* file_;
  std::string path_;
  const JsonValue* value_;
};

}  // namespace moe_mamba::inline v0_2::detail
