#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/families/architecture.hpp"
#include "moe_mamba/io/json.hpp"

namespace moe_mamba::inline v0_2::families {

/// The fields of a config.json. A field that is missing, of another type or out of range throws a std::runtime_error
/// that names the file, the field, its value and what is allowed.
class Config {
 public:
  Config(std::string file, JsonValue fields, std::string prefix = "")
      : file_(std::move(file)), fields_(std::move(fields)), prefix_(std::move(prefix)) {
    if (fields_.kind != JsonValue::Kind::object) {
      const std::string name = prefix_.substr(0, prefix_.empty() ? 0 : prefix_.size() - 1);
      moe_mamba::detail::throw_content_error(file_, name.empty() ? "config" : name, fields_.text(), "an object");
    }
  }

  const std::string& file() const { return file_; }

  /// A field, or null if it is missing or null.
  const JsonValue* find(const char* name) const {
    const JsonValue* value = fields_.find(name);
    return value == nullptr || value->kind == JsonValue::Kind::null ? nullptr : value;
  }
  bool has(const char* name) const { return find(name) != nullptr; }
  /// Whether a field is present, even as null.
  bool names(const char* name) const { return fields_.find(name) != nullptr; }

  Index integer(const char* name, Index lowest, Index highest) const {
    const JsonValue& value = at(name, "an integer");
    if (value.kind != JsonValue::Kind::integer || value.integer < lowest || value.integer > highest) {
      const bool is_whole = value.kind == JsonValue::Kind::number && std::isfinite(value.number) &&
                            value.number == std::floor(value.number);
      refuse(name, value.text() + (is_whole ? " as a number with a decimal point or exponent" : ""),
             moe_mamba::detail::range_text(lowest, highest, "an integer from "));
    }
    return static_cast<Index>(value.integer);
  }
  Index integer(const char* name, Index lowest, Index highest, Index otherwise) const {
    return has(name) ? integer(name, lowest, highest) : otherwise;
  }
  /// An integer that may also be written as 10000.0.
  Index whole_number(const char* name, Index lowest, Index highest) const {
    const JsonValue& value = at(name, "a whole number");
    const bool is_number = value.kind == JsonValue::Kind::number || value.kind == JsonValue::Kind::integer;
    if (!is_number || !(value.number >= static_cast<double>(lowest) && value.number <= static_cast<double>(highest)) ||
        value.number != std::floor(value.number)) {
      refuse(name, value.text(), moe_mamba::detail::range_text(lowest, highest, "a whole number from "));
    }
    return static_cast<Index>(value.number);
  }
  bool boolean(const char* name) const {
    const JsonValue& value = at(name, "true or false");
    if (value.kind != JsonValue::Kind::boolean) refuse(name, value.text(), "true or false");
    return value.boolean;
  }
  bool boolean(const char* name, bool otherwise) const { return has(name) ? boolean(name) : otherwise; }

  bool is_text(const char* name, std::string_view text) const {
    const JsonValue* value = find(name);
    return value != nullptr && value->kind == JsonValue::Kind::string && value->string == text;
  }

  /// A norm's epsilon; definitions can represent decimal fractions of up to nine places.
  Fraction epsilon(const char* name, Fraction otherwise) const {
    const JsonValue* value = find(name);
    if (value == nullptr) return otherwise;
    const bool is_number = value->kind == JsonValue::Kind::number || value->kind == JsonValue::Kind::integer;
    const auto ratio = is_number ? Fraction::of(value->number) : std::nullopt;
    if (!ratio) refuse(name, value->text(), "a number of at least 1e-9 with at most nine decimal places");
    return *ratio;
  }

  /// A field with a single supported value.
  void require_text(const char* name, std::string_view only) const {
    if (has(name) && !is_text(name, only)) {
      refuse(name, find(name)->text(), moe_mamba::detail::in_quotes(only) + ", the only value supported");
    }
  }
  /// The activation SiLU, by either of its names.
  void require_silu(const char* name) const {
    if (has(name) && !is_text(name, "silu") && !is_text(name, "swish")) {
      refuse(name, find(name)->text(), "\"silu\" or \"swish\", the only values supported");
    }
  }
  void require_false(const char* name, const char* why) const {
    if (boolean(name, false)) refuse(name, "true", std::string("false: ") + why);
  }

  void require_none(const char* name, const char* why) const {
    if (has(name)) refuse(name, find(name)->text(), std::string("null: ") + why);
  }

  /// An object among the fields; empty if it is missing.
  Config inside(const char* name) const {
    JsonValue empty;
    empty.kind = JsonValue::Kind::object;
    return Config(file_, has(name) ? *find(name) : empty, prefix_ + name + ".");
  }

  /// Rejects objects among the fields except those with these names.
  void require_no_object_but(std::span<const char* const> names) const {
    for (std::size_t i = 0; i < fields_.keys.size(); ++i) {
      const auto is_key = [&](const char* name) { return fields_.keys[i] == name; };
      if (fields_.elements[i].kind != JsonValue::Kind::object || std::any_of(names.begin(), names.end(), is_key)) {
        continue;
      }
      std::string allowed = names.empty() ? "no nested objects" : "no nested objects except";
      for (const char* name : names) allowed += std::string(name == names.front() ? " " : ", ") + name;
      refuse(moe_mamba::detail::in_quotes(fields_.keys[i]), fields_.elements[i].text(), allowed);
    }
  }

  std::span<const JsonValue> array(const char* name) const {
    const JsonValue& value = at(name, "an array");
    if (value.kind != JsonValue::Kind::array) refuse(name, value.text(), "an array");
    return value.elements;
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& value, const std::string& allowed) const {
    moe_mamba::detail::throw_content_error(file_, prefix_ + name, value, allowed);
  }

  /// Records which field an option comes from.
  OptionSpec from(OptionSpec option, const char* field) const {
    option.field = prefix_ + field;
    option.given = has(field) ? find(field)->text() : "missing";
    return option;
  }
  /// The same for an option of a layer or model.
  void note(LayerSpec& layer, const char* name, const char* field) const { note(layer.options, name, field); }
  void note(Architecture& model, const char* name, const char* field) const { note(model.options, name, field); }

 private:
  void note(std::vector<OptionSpec>& options, const char* name, const char* field) const {
    for (OptionSpec& option : options) {
      if (option.name == name) option = from(std::move(option), field);
    }
  }

  const JsonValue& at(const char* name, const char* allowed) const {
    const JsonValue* value = find(name);
    if (value == nullptr) refuse(name, "missing", allowed);
    return *value;
  }

  std::string file_;
  JsonValue fields_;
  std::string prefix_;
};

/// A config.json with a field added, whose value needs no escaping.
inline std::string with_text_field(const std::string& config, const char* name, const std::string& value) {
  return "{\n  \"" + std::string(name) + "\": \"" + value + "\"," + config.substr(1);
}

/// Writes a JSON object line by line.
class ConfigWriter {
 public:
  ConfigWriter& raw(const char* name, const std::string& value) {
    text_ += (text_.empty() ? "{\n  \"" : ",\n  \"") + std::string(name) + "\": " + value;
    return *this;
  }
  ConfigWriter& add(const char* name, Index value) { return raw(name, std::to_string(value)); }
  ConfigWriter& flag(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
  ConfigWriter& number(const char* name, double value) { return raw(name, moe_mamba::detail::number_text(value)); }
  ConfigWriter& text(const char* name, const std::string& value) { return raw(name, '"' + value + '"'); }
  std::string finish() const { return text_ + "\n}\n"; }

 private:
  std::string text_;
};

}  // namespace moe_mamba::inline v0_2::families
