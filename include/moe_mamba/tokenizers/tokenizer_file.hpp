#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/json_field.hpp"
#include "moe_mamba/tokenizers/tables.hpp"

/// The file tokenizer.json: a vocabulary, merges, and a small tree of everything else. Files are treated as hostile:
/// reading takes time and memory in proportion to the file, and what does not belong is refused by its name.
namespace moe_mamba::detail {

inline constexpr std::size_t tokenizer_file_limit = std::size_t{1} << 29;
inline constexpr JsonLimits tokenizer_json_limits{32, std::size_t{1} << 20};  // of what is no vocabulary and no merge
inline constexpr const char* supported_models = "BPE (byte-pair encoding)";

struct TokenizerFile {
  StringTable vocabulary;  // the texts of the model's tokens as the file has them
  std::vector<Token> ids;  // of each
  std::string merge_text;
  std::vector<std::size_t> part_ends;  // in it: two parts of each merge, in order
  JsonValue rest;

  std::string_view part(std::size_t index) const {
    const std::size_t begin = index == 0 ? 0 : part_ends[index - 1];
    return std::string_view(merge_text).substr(begin, part_ends[index] - begin);
  }
};

/// Takes the events of the JSON parser.
class TokenizerFileReader {
 public:
  explicit TokenizerFileReader(const std::string& file) : file_(file), tree_(file, tokenizer_json_limits) {}

  TokenizerFile finish();

  bool null() { return add({}); }
  bool boolean(bool value) { return add(JsonValue::of(value)); }
  bool number_integer(std::int64_t value) { return add(JsonValue::of(value)); }
  bool number_unsigned(std::uint64_t value) {
    if (place_ != Place::Vocabulary) return add(JsonValue::of(value));
    add_token(value);
    return true;
  }
  bool number_float(double value, const std::string&) { return add(JsonValue::of(value)); }
  bool string(std::string& value);
  bool binary(std::vector<std::uint8_t>&) { unexpected("binary data"); }
  bool start_object(std::size_t);
  bool key(std::string& name);
  bool end_object() {
    if (place_ == Place::Vocabulary) end_vocabulary();
    return close(Place::Vocabulary);
  }
  bool start_array(std::size_t);
  bool end_array();

 private:
  enum class Place { Tree, Vocabulary, Merges, Merge };

  [[noreturn]] void unexpected(const std::string& value) const;
  bool add(JsonValue value) {
    if (place_ != Place::Tree) unexpected(value.text());
    if (tree_.depth() == 0) throw_content_error(file_, "the text", value.text(), "a JSON object");
    tree_.add(std::move(value));
    return true;
  }
  bool close(Place inner) {
    if (place_ == inner) {
      place_ = Place::Tree;
    } else {
      tree_.close();
    }
    return true;
  }
  /// Whether the value that comes is model.<name>.
  bool at_model(const char* name) const { return in_model_ && tree_.depth() == 2 && tree_.name() == name; }
  void add_token(std::uint64_t id);
  void end_vocabulary();
  void add_part(std::string_view text) {
    contents_.merge_text += text;
    contents_.part_ends.push_back(contents_.merge_text.size());
  }
  void add_written_merge(const std::string& text);

  const std::string& file_;
  JsonBuilder tree_;
  TokenizerFile contents_;
  Place place_ = Place::Tree;
  bool in_model_ = false, has_vocabulary_ = false, has_merges_ = false;
  std::string token_;                   // the name of the vocabulary's entry
  ByteStrings tokens_;                  // of the vocabulary so far
  std::size_t merges_ = 0, parts_ = 0;  // whole merges, and parts of the next
};

inline void TokenizerFileReader::unexpected(const std::string& value) const {
  if (place_ == Place::Vocabulary) {
    throw_content_error(file_, "model.vocab " + in_quotes(token_), value, "an integer from 0 to 2147483647");
  }
  throw_content_error(file_, "model.merges[" + std::to_string(merges_) + "]", value,
                      "two tokens: an array of two strings, or one string with a space between them");
}

inline void TokenizerFileReader::add_token(std::uint64_t id) {
  if (id > 0x7fffffff) unexpected(std::to_string(id));
  tokens_.push_back(token_);
  contents_.ids.push_back(static_cast<Token>(id));
}

inline void TokenizerFileReader::end_vocabulary() {
  try {
    contents_.vocabulary = StringTable(std::exchange(tokens_, {}));
  } catch (const RepeatedString& repeated) {
    throw_content_error(file_, "model.vocab " + in_quotes(repeated.text), "there twice", "each token once");
  }
}

/// "<left> <right>"; files that were once lists of lines have a line of their version as well.
inline void TokenizerFileReader::add_written_merge(const std::string& text) {
  if (text.starts_with("#version")) return;
  const std::size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) unexpected(in_quotes(text));
  add_part(std::string_view(text).substr(0, space));
  add_part(std::string_view(text).substr(space + 1));
  ++merges_;
}

inline bool TokenizerFileReader::string(std::string& value) {
  if (place_ == Place::Merges) {
    add_written_merge(value);
  } else if (place_ == Place::Merge) {
    if (++parts_ > 2) unexpected("longer than 2");
    add_part(value);
  } else {
    // Told at once: what follows is laid out in the way of that model.
    if (at_model("type") && value != "BPE")
      throw_content_error(file_, "model.type", in_quotes(value), supported_models);
    return add(JsonValue::of(std::move(value)));
  }
  return true;
}

inline bool TokenizerFileReader::start_object(std::size_t) {
  if (place_ != Place::Tree) unexpected("an object");
  if (at_model("vocab")) {
    if (has_vocabulary_) throw_content_error(file_, "model.vocab", "there twice", "once");
    has_vocabulary_ = true;
    tree_.add({});  // null in the tree
    place_ = Place::Vocabulary;
    return true;
  }
  if (at_model("merges")) throw_content_error(file_, "model.merges", "an object", "an array");
  if (tree_.depth() == 1) in_model_ = tree_.name() == "model";
  tree_.open(JsonValue::Kind::object);
  return true;
}

inline bool TokenizerFileReader::key(std::string& name) {
  if (place_ == Place::Vocabulary) {
    token_ = name;
  } else {
    tree_.key(name);
    if (tree_.depth() == 1) in_model_ = false;
  }
  return true;
}

inline bool TokenizerFileReader::start_array(std::size_t) {
  if (place_ == Place::Merges) {
    place_ = Place::Merge;
    parts_ = 0;
    return true;
  }
  if (place_ != Place::Tree) unexpected("an array");
  if (at_model("merges")) {
    if (has_merges_) throw_content_error(file_, "model.merges", "there twice", "once");
    has_merges_ = true;
    tree_.add({});
    place_ = Place::Merges;
    return true;
  }
  if (at_model("vocab")) {
    throw_content_error(file_, "model.vocab", "an array",
                        "an object, as models of type " + std::string(supported_models) + " have it");
  }
  if (tree_.depth() == 0) throw_content_error(file_, "the text", "an array", "a JSON object");
  tree_.open(JsonValue::Kind::array);
  return true;
}

inline bool TokenizerFileReader::end_array() {
  if (place_ != Place::Merge) return close(Place::Merges);
  if (parts_ != 2) unexpected("an array of " + std::to_string(parts_));
  place_ = Place::Merges;
  ++merges_;
  return true;
}

inline TokenizerFile TokenizerFileReader::finish() {
  contents_.rest = tree_.finish();
  const JsonField root(file_, "", &contents_.rest);
  if (!root["model"].is_object()) root["model"].refuse("an object");
  if (!root["model"]["type"].is_null()) root["model"]["type"].string();
  if (!has_vocabulary_) root["model"]["vocab"].refuse("an object of tokens and their ids");
  if (!has_merges_)
    root["model"]["merges"].refuse("an array, as models of type " + std::string(supported_models) + " have it");
  return std::move(contents_);
}

/// Reads a file that lies in memory. `file` names it in errors and must outlive the call only.
inline TokenizerFile read_tokenizer_file(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty() || text.size() > tokenizer_file_limit) {
    throw_content_error(file, "file size", std::to_string(text.size()) + " bytes",
                        "1 to " + std::to_string(tokenizer_file_limit));
  }
  return read_json<TokenizerFileReader>(text, file);
}

}  // namespace moe_mamba::detail
