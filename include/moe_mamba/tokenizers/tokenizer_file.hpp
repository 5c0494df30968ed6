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

/// The file tokenizer.json: a vocabulary, merges, and a small tree of everything else. Files are untrusted input:
/// reading takes time and memory proportional to the file, and unexpected contents are rejected by name.
namespace moe_mamba::inline v0_2::detail {

inline constexpr std::size_t tokenizer_file_limit = std::size_t{1} << 29;
inline constexpr JsonLimits tokenizer_json_limits{32, std::size_t{1} << 20};  // of everything but vocabulary and merges
inline constexpr const char* supported_models = "BPE (byte-pair encoding)";

struct TokenizerFile {
  StringTable vocabulary;  // the texts of the model's tokens, as in the file
  std::vector<Token> ids;  // of each
  std::string merge_text;
  std::vector<std::size_t> part_ends;  // end offsets in merge_text, two per merge
  JsonValue rest;

  std::string_view part(std::size_t index) const {
    const std::size_t begin = index == 0 ? 0 : part_ends[index - 1];
    return std::string_view(merge_text).substr(begin, part_ends[index] - begin);
  }
};

/// Handles the events of the JSON parser.
class TokenizerFileReader {
 public:
  explicit TokenizerFileReader(const std::string& file) : file_(file), tree_(file, tokenizer_json_limits) {}

  TokenizerFile finish();

  void null() { add({}); }
  void boolean(bool value) { add(JsonValue::of(value)); }
  void negative_integer(std::int64_t value) { add(JsonValue::of(value)); }
  void unsigned_integer(std::uint64_t value) {
    if (state_ != State::Vocabulary) return add(JsonValue::of(value));
    add_token(value);
  }
  void real(double value, std::string_view) { add(JsonValue::of(value)); }
  void string(std::string& value);
  void start_object();
  void key(std::string& name);
  void end_object() {
    if (state_ == State::Vocabulary) end_vocabulary();
    close(State::Vocabulary);
  }
  void start_array();
  void end_array();

 private:
  enum class State { Tree, Vocabulary, Merges, Merge };

  [[noreturn]] void unexpected(const std::string& value) const;
  void add(JsonValue value) {
    if (state_ != State::Tree) unexpected(value.text());
    if (tree_.depth() == 0) throw_content_error(file_, "the text", value.text(), "a JSON object");
    tree_.add(std::move(value));
  }
  void close(State inner) {
    if (state_ == inner) {
      state_ = State::Tree;
    } else {
      tree_.close();
    }
  }
  /// Whether the next value is model.<name>.
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
  State state_ = State::Tree;
  bool in_model_ = false, has_vocabulary_ = false, has_merges_ = false;
  std::string token_;                   // current key of the vocabulary
  ByteStrings tokens_;                  // of the vocabulary so far
  std::size_t merges_ = 0, parts_ = 0;  // complete merges, and parts of the next one
};

inline void TokenizerFileReader::unexpected(const std::string& value) const {
  if (state_ == State::Vocabulary) {
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
  } catch (const DuplicateString& duplicate) {
    throw_duplicate(file_, "token " + in_quotes(duplicate.text) + " in model.vocab");
  }
}

/// "<left> <right>"; files converted from lists of lines may have a version line as well.
inline void TokenizerFileReader::add_written_merge(const std::string& text) {
  if (text.starts_with("#version")) return;
  const std::size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) unexpected(in_quotes(text));
  add_part(std::string_view(text).substr(0, space));
  add_part(std::string_view(text).substr(space + 1));
  ++merges_;
}

inline void TokenizerFileReader::string(std::string& value) {
  if (state_ == State::Merges) {
    add_written_merge(value);
  } else if (state_ == State::Merge) {
    if (++parts_ > 2) unexpected("longer than 2");
    add_part(value);
  } else {
    // Checked at once, because the layout of what follows depends on the model.
    if (at_model("type") && value != "BPE")
      throw_content_error(file_, "model.type", in_quotes(value), supported_models);
    return add(JsonValue::of(std::move(value)));
  }
}

inline void TokenizerFileReader::start_object() {
  if (state_ != State::Tree) unexpected("an object");
  if (at_model("vocab")) {
    if (has_vocabulary_) throw_duplicate(file_, "key model.vocab");
    has_vocabulary_ = true;
    tree_.add({});  // null in the tree
    state_ = State::Vocabulary;
    return;
  }
  if (at_model("merges")) throw_content_error(file_, "model.merges", "an object", "an array");
  if (tree_.depth() == 1) in_model_ = tree_.name() == "model";
  tree_.open(JsonValue::Kind::object);
}

inline void TokenizerFileReader::key(std::string& name) {
  if (state_ == State::Vocabulary) {
    token_ = name;
  } else {
    tree_.key(name);
    if (tree_.depth() == 1) in_model_ = false;
  }
}

inline void TokenizerFileReader::start_array() {
  if (state_ == State::Merges) {
    state_ = State::Merge;
    parts_ = 0;
    return;
  }
  if (state_ != State::Tree) unexpected("an array");
  if (at_model("merges")) {
    if (has_merges_) throw_duplicate(file_, "key model.merges");
    has_merges_ = true;
    tree_.add({});
    state_ = State::Merges;
    return;
  }
  if (at_model("vocab")) {
    throw_content_error(file_, "model.vocab", "an array",
                        "an object, as in models of type " + std::string(supported_models));
  }
  if (tree_.depth() == 0) throw_content_error(file_, "the text", "an array", "a JSON object");
  tree_.open(JsonValue::Kind::array);
}

inline void TokenizerFileReader::end_array() {
  if (state_ != State::Merge) return close(State::Merges);
  if (parts_ != 2) unexpected("an array of " + std::to_string(parts_));
  state_ = State::Merges;
  ++merges_;
}

inline TokenizerFile TokenizerFileReader::finish() {
  contents_.rest = tree_.finish();
  const JsonField root(file_, "", &contents_.rest);
  if (!root["model"].is_object()) root["model"].refuse("an object");
  if (!root["model"]["type"].is_null()) root["model"]["type"].string();
  if (!has_vocabulary_) root["model"]["vocab"].refuse("an object of tokens and their ids");
  if (!has_merges_) root["model"]["merges"].refuse("an array, as in models of type " + std::string(supported_models));
  return std::move(contents_);
}

/// Parses a file in memory. `file` names it in errors.
inline TokenizerFile read_tokenizer_file(std::span<const std::byte> bytes, const std::string& file) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.empty() || text.size() > tokenizer_file_limit) {
    throw_content_error(file, "file size", std::to_string(text.size()) + " bytes",
                        "1 to " + std::to_string(tokenizer_file_limit));
  }
  return read_json<TokenizerFileReader>(text, file);
}

}  // namespace moe_mamba::inline v0_2::detail
