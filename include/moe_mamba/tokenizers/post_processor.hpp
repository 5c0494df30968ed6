#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "moe_mamba/core/scalar.hpp"
#include "moe_mamba/tokenizers/json_field.hpp"

namespace moe_mamba::inline v0_2::detail {

/// The special tokens that a tokenizer adds around a single text.
class PostProcessor {
 public:
  PostProcessor() = default;
  /// is_token(Token): whether an id is a token.
  template <class IsToken>
  PostProcessor(const JsonField& field, const IsToken& is_token) {
    std::vector<Part> parts{{text}};
    add(field, is_token, parts);
    Part* around = &before_;
    for (const Part& part : parts) {
      for (const Token token : part) {
        if (token == text) {
          around = &after_;
        } else {
          around->push_back(token);
        }
      }
    }
  }

  const std::vector<Token>& before() const { return before_; }
  const std::vector<Token>& after() const { return after_; }

 private:
  /// Each step takes the parts produced by the one before it: a template produces several, the second of which the next
  /// step treats as the second text of a pair.
  using Part = std::vector<Token>;
  static constexpr Token text = -1;  // represents the tokens of the text in a part
  static constexpr std::size_t most_tokens = 1024;

  static void check_size(const JsonField& field, const std::vector<Part>& parts) {
    std::size_t size = parts.size();
    for (const Part& part : parts) size += part.size();
    if (size > most_tokens) field.refuse("at most " + std::to_string(most_tokens) + " tokens around a text");
  }

  template <class IsToken>
  static Token read_token(const JsonField& field, const IsToken& is_token) {
    const auto id = static_cast<Token>(field.integer(0x7fffffff));
    if (!is_token(id)) field.refuse("the id of a token");
    return id;
  }

  template <class IsToken>
  static void add(const JsonField& field, const IsToken& is_token, std::vector<Part>& parts) {
    if (field.is_null()) return;
    const std::size_t type =
        field["type"].choice({"ByteLevel", "TemplateProcessing", "Sequence", "BertProcessing", "RobertaProcessing"});
    switch (type) {
      case 0:  // concerns offsets only
        return;
      case 1:
        return add_template(field, is_token, parts);
      case 2:
        for (const JsonField& part : field["processors"].elements()) add(part, is_token, parts);
        return;
      default:
        add_around(field, is_token, type == 4, parts);
    }
  }

  /// BERT's and RoBERTa's, which differ in the tokens before a second text.
  template <class IsToken>
  static void add_around(const JsonField& field, const IsToken& is_token, bool twice, std::vector<Part>& parts) {
    const auto read = [&](const JsonField& pair) {
      const auto elements = pair.elements();
      if (elements.size() != 2) pair.refuse("a token and its id");
      return read_token(elements[1], is_token);
    };
    const Token begin = read(field["cls"]), end = read(field["sep"]);
    for (Part& part : parts) {
      if (&part == &parts.front()) {
        part.insert(part.begin(), begin);
      } else if (twice) {
        part.insert(part.begin(), end);
      }
      part.push_back(end);
    }
    check_size(field, parts);
  }

  template <class IsToken>
  static void add_template(const JsonField& field, const IsToken& is_token, std::vector<Part>& parts) {
    if (parts.size() > 2) field["type"].refuse("a step that accepts the parts of a template, such as ByteLevel");
    const JsonField items = field[parts.size() == 2 ? "pair" : "single"];
    std::vector<Part> made;
    for (const JsonField& item : items.elements()) {
      if (const JsonField sequence = item["Sequence"]; !sequence.is_null()) {
        const std::size_t which = sequence["id"].choice({"A", "B"});
        if (which >= parts.size()) sequence["id"].refuse("A for a single text");
        made.push_back(parts[which]);
        check_size(sequence, made);
        continue;
      }
      const std::string& name = item["SpecialToken"]["id"].string();
      const JsonField ids = field["special_tokens"][name]["ids"];
      Part& tokens = made.emplace_back();
      for (const JsonField& id : ids.elements()) tokens.push_back(read_token(id, is_token));
      check_size(ids, made);
    }
    std::ptrdiff_t texts = 0;
    for (const Part& part : made) texts += std::count(part.begin(), part.end(), text);
    if (texts != 1) items.refuse(std::to_string(texts) + " times the text", "a template with the text exactly once");
    parts = std::move(made);
  }

  std::vector<Token> before_, after_;
};

}  // namespace moe_mamba::inline v0_2::detail
