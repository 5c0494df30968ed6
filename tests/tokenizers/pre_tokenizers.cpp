// Each kind of pre-tokenizer, alone and in sequences, compared to the words of the tokenizers package.
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

struct Case {
  std::string json, text;
  std::vector<std::string> words;
};

// The first are those of Falcon and of DeepSeek's first models.
const Case cases[] = {
    {R"({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Contiguous"}, )"
     R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}, )"
     R"({"type": "Digits", "individual_digits": false}, {"type": "Split", )"
     R"("pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false}]})",
     "12\u00bd3456 \u043c don't (stop)!!",
     {"12", "\u00c2", "\u00bd", "345", "6", "\u0120\u00d0", "\u00bc", "\u0120don", "'", "t", "\u0120", "(", "stop",
      ")!!"}},
    {R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "[\\r\\n]"}, )"
     R"("behavior": "Isolated", "invert": false}, {"type": "Split", )"
     R"("pattern": {"Regex": "\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false}, )"
     R"({"type": "Split", "pattern": {"Regex": "\\s?\\p{P}+"}, "behavior": "Isolated", )"
     R"("invert": false}, {"type": "Split", )"
     R"("pattern": {"Regex": "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"}, "behavior": "Isolated", )"
     R"("invert": false}, {"type": "Digits", "individual_digits": true}, {"type": "ByteLevel", )"
     R"("add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})",
     "Hi, \u4e16\u754c 12\n",
     {"Hi", ",", "\u0120", "\u00e4\u00b8\u0138\u00e7\u0137\u012e", "\u0120", "1", "2", "\u010a"}},
    {R"({"type": "Whitespace"})", "don't  1\u00bd a_b\u200d !?", {"don", "'", "t", "1", "\u00bd", "a_b\u200d", "!?"}},
    {R"({"type": "WhitespaceSplit"})", " a,b\u3000c\n", {"a,b", "c"}},
    {R"({"type": "BertPreTokenizer"})", "It's $5, \u00e9", {"It", "'", "s", "$", "5", ",", "\u00e9"}},
    {R"({"type": "CharDelimiterSplit", "delimiter": "\u00e9"})", "a\u00e9b\u00e9\u00e9", {"a", "b"}},
    {R"({"type": "Punctuation", "behavior": "MergedWithPrevious"})",
     "Hi!! you, (x)",
     {"Hi!", "!", " you,", " (", "x)"}},
    {R"({"type": "Punctuation", "behavior": "MergedWithNext"})",
     "Hi!! you, (x)",
     {"Hi", "!", "! you", ", ", "(x", ")"}},
    {R"({"type": "UnicodeScripts"})",
     " \u3069\u3053\u3067\u751f\u308c\u3002Yes \u04361",
     {"\u3069\u3053\u3067\u751f\u308c", "\u3002", "Yes ", "\u0436", "1"}},
    {R"({"type": "FixedLength", "length": 3})", "a\u00f1b\U0001f600cde", {"a\u00f1b", "\U0001f600cd", "e"}},
    {R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": true, )"
     R"("use_regex": false, "trim_offsets": true}, {"type": "ByteLevel", "add_prefix_space": false, )"
     R"("use_regex": true, "trim_offsets": true}]})",
     "\u00e9 a",
     {"\u00c4\u0142\u00c3\u0125", "\u00c2\u00a9", "\u00c4\u0142a"}},
    {R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": true, )"
     R"("use_regex": true, "trim_offsets": true}, {"type": "Metaspace", "replacement": "_", )"
     R"("prepend_scheme": "first", "split": true}]})",
     "\u00e9 a",
     {"_\u0120\u00c3\u00a9", "\u0120a"}},
};

}  // namespace

TEST_CASE("Text is split as by the reference", "[tokenizers]") {
  for (const Case& expected : cases) {
    INFO(expected.json);
    const std::string file = "tokenizer.json";
    const JsonValue value = parse_json(expected.json, file);
    const detail::PreTokenizer pre_tokenizer(detail::JsonField(file, "pre_tokenizer", &value));
    std::vector<std::string> words;
    pre_tokenizer.split(expected.text, 0, [&](std::string_view word) {
      // Bytes are written as in a file.
      words.push_back(pre_tokenizer.byte_level() ? detail::written_bytes(word) : std::string(word));
    });
    CHECK(words == expected.words);
  }
}

TEST_CASE("A character without a token is found through every step", "[tokenizers]") {
  const BpeTokenizer tokenizer = test::parse_tokenizer(
      R"({"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"WhitespaceSplit"},)"
      R"({"type":"ByteLevel","add_prefix_space":true},{"type":"Digits","individual_digits":true},)"
      R"({"type":"Metaspace","replacement":"_","prepend_scheme":"always"}]},)"
      R"("model":{"vocab":{"a":0,"_":1,"\u0120":2,"\u00c3":3},"merges":[]}})");
  CHECK(test::message_of<std::invalid_argument>([&] {
          tokenizer.encode("a a aa\u00e9a");
        }).starts_with("text is \"\u00a9\", which the pre-tokenizer writes for \"\u00e9\" at byte 6; allowed: "));
}
