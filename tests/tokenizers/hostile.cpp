// Invalid files, malicious or not.
#include <chrono>

#include "moe_mamba/core/random.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"
#include "tokenizers/fixtures.hpp"

using namespace moe_mamba;

namespace {

/// The message with which a file is refused, "" if it is not; any other exception fails the test.
std::string refusal(const std::string& json) {
  return test::message_of<std::runtime_error>([&] { test::parse_tokenizer(json); });
}

/// A file with a small model and other parts.
std::string with(const std::string& parts, const std::string& vocabulary = R"("a":0,"b":1,"ab":2)",
                 const std::string& merges = R"(["a","b"])") {
  return R"({"model":{"type":"BPE","vocab":{)" + vocabulary + R"(},"merges":[)" + merges + "]}" +
         (parts.empty() ? "" : ",") + parts + "}";
}

void require_refused(const std::string& json, const std::string& field_and_value, const std::string& allowed = "") {
  const std::string message = refusal(json);
  INFO(json.substr(0, 300));
  INFO(message);
  CHECK(message.starts_with("tokenizer.json: " + field_and_value));
  CHECK(message.find(allowed) != message.npos);
  CHECK(message.size() < 4000);
}

}  // namespace

TEST_CASE("Other kinds of model are refused by name", "[tokenizers]") {
  for (const char* type : {"WordPiece", "Unigram", "WordLevel", ""}) {
    require_refused(R"({"model":{"type":")" + std::string(type) + R"(","vocab":{}}})",
                    "model.type is \"" + std::string(type) + "\"; allowed: BPE");
  }
  require_refused(R"({"model":{"vocab":[["a",0.1]]}})", "model.vocab is an array", "BPE");
  require_refused(R"({"model":{"vocab":{"a":0}}})", "model.merges is missing", "BPE");
  require_refused(R"({"model":{"merges":[]}})", "model.vocab is missing");
  require_refused(R"({"model":{"type":1,"vocab":{},"merges":[]}})", "model.type is 1");
  require_refused("{}", "model is missing");
  require_refused(R"({"model":[]})", "model is an array");
  CHECK(refusal(with("")).empty());
}

TEST_CASE("Text that is not a JSON object is refused", "[tokenizers]") {
  require_refused("", "file size is 0 bytes");
  for (const char* text : {"[]", "1", "null", "\"a\"", "true", "-1.5"}) require_refused(text, "the text is ");
  for (const char* text :
       {"{", "{\"a\":}", "{\"a\":1e999.0}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\xff\"}", "{\"\xc3\":1}", "{}}"}) {
    require_refused(text, "the text is not valid at byte", "JSON");
  }
  require_refused(std::string("{}\0", 3), "byte 2 is zero");
  require_refused(with("") + with(""), "the text is not valid");
  require_refused(R"({"model":{"vocab":{"\ud834":0},"merges":[]}})", "the text is not valid");
}

TEST_CASE("Inconsistent vocabularies and merges are refused by name", "[tokenizers]") {
  for (const char* value : {"-1", "1.5", "null", "true", "\"0\"", "[]", "{}", "2147483648", "99999999999999999999"}) {
    INFO(value);
    require_refused(with("", R"("a":)" + std::string(value)), "model.vocab \"a\" is ",
                    "an integer from 0 to 2147483647");
  }
  require_refused(with("", R"("a":0,"a":1)"), "duplicate token \"a\" in model.vocab");
  require_refused(with("", R"("a":0,"b":0)", ""),
                  "model.vocab \"b\" is id 0; allowed: a unique id; \"a\" has the same");
  require_refused(with("", R"("a":2147483647)", ""), "model.vocab \"a\" is 2147483647; allowed: 0 to 65537");
  CHECK(refusal(with("", R"("a":65537)", "")).empty());

  require_refused(with("", R"("a":0,"ab":1)"), "model.merges[0] is a merge with \"b\"; allowed: tokens of model.vocab");
  require_refused(with("", R"("a":0,"b":1)"), "model.merges[0] is a merge with \"ab\"");
  require_refused(with("", R"("a":0,"b":1,"ab":2)", R"("a b","b b")"), "model.merges[1] is a merge with \"bb\"");
  for (const char* merge : {"1", "null", "{}", "\"ab\"", "\"a b c\"", "\"\"", "[]", "[\"a\"]", "[\"a\",\"b\",\"c\"]",
                            "[1,2]", "[[\"a\"]]", "[\"a\",null]"}) {
    require_refused(with("", R"("a":0,"b":1,"ab":2)", merge), "model.merges[0] is ", "two tokens");
  }
  CHECK(refusal(with("", R"("a":0,"b":1,"ab":2)", R"("#version: 0.2","a b","a b")")).empty());
  for (const char* twice : {R"("vocab":{},"vocab":{},"merges":[])", R"("vocab":{},"merges":[],"merges":[])"}) {
    require_refused(R"({"model":{)" + std::string(twice) + "}}", "duplicate key model.");
  }
  require_refused(R"({"model":{"vocab":{},"merges":{}}})", "model.merges is an object");
  CHECK(refusal(R"({"model":{"merges":["a b"],"vocab":{"a":0,"b":1,"ab":2}}})").empty());
  CHECK(refusal(R"({"model":{"vocab":{},"merges":[]}})").empty());
}

TEST_CASE("Parts that are invalid or not supported are refused by name", "[tokenizers]") {
  const auto model = [](const std::string& options) { return R"({"model":{"vocab":{},"merges":[],)" + options + "}}"; };
  require_refused(model(R"("dropout":0.1)"), "model.dropout is 0.1", "null or 0");
  CHECK(refusal(model(R"("dropout":0.0)")).empty());
  for (const std::string name : {"end_of_word_suffix", "continuing_subword_prefix"}) {
    require_refused(model('"' + name + R"(":")" + std::string(65, '_') + '"'), "model." + name, "at most 64 bytes");
    require_refused(model('"' + name + R"(":1)"), "model." + name + " is 1", "a string");
  }
  require_refused(model(R"("byte_fallback":1)"), "model.byte_fallback is 1; allowed: true or false");
  require_refused(model(R"("unk_token":[])"), "model.unk_token is an array of 0; allowed: a string");

  require_refused(with(R"("version":"2.0")"), "version is \"2.0\"; allowed: 1.0");
  const auto normalizers = [](const std::string& all) {
    return with(R"("normalizer":{"type":"Sequence","normalizers":[)" + all + "]}");
  };
  require_refused(normalizers(R"({"type":"NFC"},{"type":"Uppercase"})"),
                  "normalizer.normalizers[1].type is \"Uppercase\"", "NFC");
  for (const char* map : {R"("")", R"("AAA")", R"("=AAA")", R"("/////w==")", R"("AAAAAA==")", R"("AwAAAAAA")"}) {
    require_refused(normalizers(R"({"type":"Precompiled","precompiled_charsmap":)" + std::string(map) + "}"),
                    "normalizer.normalizers[0].precompiled_charsmap is ", "a sentencepiece table in base64");
  }
  require_refused(normalizers(R"({"type":"Replace","pattern":{"Regex":"x*"},"content":" "})"),
                  "normalizer.normalizers[0].pattern.Regex is \"x*\"",
                  "an expression that matches at least one character");
  require_refused(
      normalizers(R"({"type":"Replace","pattern":{"Regex":")" + std::string(16385, 'x') + R"("},"content":""})"),
      "normalizer.normalizers[0].pattern.Regex is \"xxx", "at most 16384 bytes");
  require_refused(with(R"("normalizer":{"type":"Replace","pattern":{"Regex":"(x"},"content":""})"),
                  "normalizer.pattern.Regex is \"(x\" (the end of the expression at byte 2)", ")");
  require_refused(with(R"("normalizer":{"type":"Replace","pattern":{"String":""},"content":""})"),
                  "normalizer.pattern.String is \"\"");
  require_refused(with(R"("normalizer":[])"), "normalizer is an array of 0; allowed: an object");
  require_refused(with(R"("normalizer":1)"), "normalizer is 1");
  require_refused(with(R"("normalizer":{})"), "normalizer.type is missing");

  require_refused(with(R"("pre_tokenizer":{"type":"Sentences"})"), "pre_tokenizer.type is \"Sentences\"", "ByteLevel");
  require_refused(with(R"("pre_tokenizer":{"type":"FixedLength","length":0})"), "pre_tokenizer.length is 0",
                  "1 or more");
  require_refused(with(R"("pre_tokenizer":{"type":"CharDelimiterSplit","delimiter":"ab"})"),
                  "pre_tokenizer.delimiter is \"ab\"", "one character");
  require_refused(with(R"("pre_tokenizer":{"type":"Punctuation","behavior":"None"})"),
                  "pre_tokenizer.behavior is \"None\"", "Isolated");
  require_refused(with(R"("pre_tokenizer":{"type":"ByteLevel"})"), "pre_tokenizer.add_prefix_space is missing");
  require_refused(
      with(R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"(\\w+"},"behavior":"Isolated","invert":false})"),
      "pre_tokenizer.pattern.Regex is \"(\\w+\" (the end of the expression at byte 4)", ")");
  require_refused(
      with(R"("pre_tokenizer":{"type":"Split","pattern":{"String":" "},"behavior":"isolated","invert":false})"),
      "pre_tokenizer.behavior is \"isolated\"", "Isolated");
  require_refused(with(R"("pre_tokenizer":{"type":"Metaspace","replacement":"ab"})"),
                  "pre_tokenizer.replacement is \"ab\"", "one character");
  require_refused(with(R"("decoder":{"type":"Words"})"), "decoder.type is \"Words\"", "ByteLevel");
  require_refused(with(R"("decoder":{"type":"BPEDecoder","suffix":""})"), "decoder.suffix is \"\"");
  require_refused(with(R"("decoder":{"type":"Sequence","decoders":[{"type":"CTC"},{"type":"WordPiece"}]})"),
                  "decoder.decoders[1].type is \"WordPiece\"", "as CTC drops some");
  require_refused(with(R"("decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Metaspace"}]})"),
                  "decoder.decoders[1].type is \"Metaspace\"", "Fuse, Strip");
  require_refused(with(R"("decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"ByteFallback"}]})"),
                  "decoder.decoders[1].type is \"ByteFallback\"");
  require_refused(with(R"("decoder":{"type":"Sequence","decoders":[{"type":"Fuse"},)"
                       R"({"type":"Strip","content":"ab","start":1,"stop":1}]})"),
                  "decoder.decoders[1].content is \"ab\"", "one character");

  require_refused(with(R"("post_processor":{"type":"BertProcessing"})"), "post_processor.cls is missing");
  require_refused(with(R"("post_processor":{"type":"RobertaProcessing","cls":["a",0],"sep":["b",9]})"),
                  "post_processor.sep[1] is 9", "the id of a token");
  const auto single = [](const std::string& items, const std::string& tokens) {
    return with(R"("post_processor":{"type":"TemplateProcessing","single":[)" + items + R"(],"special_tokens":{)" +
                tokens + "}}");
  };
  const std::string text = R"({"Sequence":{"id":"A","type_id":0}})",
                    special = R"({"SpecialToken":{"id":"s","type_id":0}})";
  require_refused(single("", ""), "post_processor.single is 0 times the text");
  require_refused(single(text + "," + text, ""), "post_processor.single is 2 times the text");
  require_refused(single(R"({"Sequence":{"id":"B","type_id":0}})", ""),
                  "post_processor.single[0].Sequence.id is \"B\"");
  require_refused(single(text + "," + special, ""), "post_processor.special_tokens.s is missing");
  require_refused(single(text + "," + special, R"("s":{"ids":[7]})"), "post_processor.special_tokens.s.ids[0] is 7");
  require_refused(single(text + "," + special, R"("s":{"ids":[-1]})"), "post_processor.special_tokens.s.ids[0] is -1");
  CHECK(refusal(single(text + "," + special, R"("s":{"ids":[2]})")).empty());
  std::string many = text;
  for (int i = 0; i < 1024; ++i) many += "," + special;
  require_refused(single(many, R"("s":{"ids":[2,2,2]})"), "post_processor.special_tokens.s.ids is an array of 3",
                  "at most 1024 tokens");
  require_refused(single(many, R"("s":{"ids":[]})"), "post_processor.special_tokens.s.ids is an array of 0",
                  "at most 1024 tokens");
}

TEST_CASE("Invalid added tokens are refused by name", "[tokenizers]") {
  const auto added = [](const std::string& tokens) { return with(R"("added_tokens":[)" + tokens + "]"); };
  require_refused(added(R"({"id":3})"), "added_tokens[0].content is missing");
  require_refused(added(R"({"content":"x"})"), "added_tokens[0].id is missing");
  require_refused(added(R"({"content":"x","id":-3})"), "added_tokens[0].id is -3");
  require_refused(added(R"({"content":"x","id":2147483647})"), "added_tokens[0].id is 2147483647");
  require_refused(added(R"({"content":"x","id":1})"), "added_tokens[0].id is id 1; allowed: a unique id; \"b\"");
  require_refused(added(R"({"content":"a","id":3})"), "added_tokens[0].id is 3; allowed: 0, which model.vocab");
  require_refused(added(R"({"content":"x","id":3},{"content":"x","id":4})"), "added_tokens[1].content is \"x\"");
  const auto lowered = [&](const std::string& tokens) {
    return with(R"("normalizer":{"type":"Lowercase"},"added_tokens":[)" + tokens + "]");
  };
  const std::string one = R"({"content":"X","id":3,"normalized":true},)";
  CHECK(refusal(lowered(one + R"({"content":"x","id":4})")).empty());
  require_refused(lowered(one + R"({"content":"x","id":4,"normalized":true})"), "added_tokens[1].content is \"x\"",
                  "no other added token");
  require_refused(with(R"("normalizer":{"type":"StripAccents"},"added_tokens":[)"
                       R"({"content":"\u0301","id":3,"normalized":true}])"),
                  "added_tokens[0].content is \"", "1 to 72 bytes");
  require_refused(added(R"({"content":"x","id":3},{"content":"y","id":3})"), "added_tokens[1].id is id 3");
  require_refused(added(R"({"content":"x","id":3,"special":"yes"})"), "added_tokens[0].special is \"yes\"");
  require_refused(added(R"({"content":")" + std::string(1025, 'x') + R"(","id":3})"), "added_tokens[0].content is ",
                  "at most 1024 bytes");
  CHECK(refusal(added(R"({"content":"","id":3},{"content":"x","id":70},{"content":"a","id":0})")).empty());
}

TEST_CASE("Deep, wide and growing files are refused quickly", "[tokenizers]") {
  const auto start = std::chrono::steady_clock::now();
  require_refused("{\"normalizer\":" + std::string(5'000'000, '['), "the nesting in normalizer is deeper than 32");
  std::string objects = "{\"model\":";
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"a\":";
  require_refused(objects, "the nesting in model is deeper than 32");
  require_refused("{\"model\":{\"merges\":" + std::string(1'000'000, '['), "model.merges[0] is an array");
  std::string wide = "{\"padding\":[0";
  for (int i = 0; i < 2'000'000; ++i) wide += ",0";
  require_refused(wide, "the number of values is over 1048576");
  std::string members = "{\"padding\":{\"\":0";
  for (int i = 0; i < 1'100'000; ++i) members += ",\"" + std::to_string(i) + "\":0";
  require_refused(members, "the number of values is over 1048576");
  require_refused(R"({"padding":1,"padding":2})", "duplicate key padding");

  std::string growing = R"("normalizer":{"type":"Sequence","normalizers":[)";
  for (int i = 0; i < 30; ++i) {
    growing += std::string(i > 0 ? "," : "") + R"({"type":"Replace","pattern":{"String":"a"},"content":"aaaa"})";
  }
  require_refused(with(growing + "]}"), "normalizer.normalizers[3].content is \"aaaa\"", "64 times");

  std::string writing = R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[)";
  for (int i = 0; i < 7; ++i)
    writing += std::string(i > 0 ? "," : "") + R"({"type":"ByteLevel","add_prefix_space":true})";
  require_refused(with(writing + "]}"), "pre_tokenizer.pretokenizers[6].type is \"ByteLevel\"", "64 times");

  // As many merges as possible, to long tokens: 10^6 of them, and one token of 2 MB.
  std::string vocabulary = R"("a":0,"b":1)", merges;
  std::string token = "a";
  for (int i = 0; i < 1000; ++i) {
    merges += (i > 0 ? "," : "") + ("\"" + token + " b\"");
    token += 'b';
    vocabulary += ",\"" + token + "\":" + std::to_string(i + 2);
  }
  for (int i = 0; i < 999'000; ++i) merges += ",\"a b\"";
  const std::string long_token(2'000'000, 'b');
  vocabulary += ",\"" + long_token + "\":1002";
  const BpeTokenizer tokenizer = test::parse_tokenizer(with("", vocabulary, merges));
  CHECK(tokenizer.encode(token).size() > 0);
  CHECK(tokenizer.encode(std::string(300'000, 'a') + std::string(300'000, 'b')).size() > 100);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));  // sanitizers and other work included
}

TEST_CASE("A file damaged anywhere is refused or read, without other errors", "[tokenizers]") {
  Random random(Seed{12});
  const std::string fragments[] = {"\"", "{",   "}",    "[",    "]",    ",",    ":",
                                   "-1", "1e9", "null", "true", "\"\"", "\xff", "\\u0000"};
  for (const char* name : {"llama3", "llama2", "added"}) {
    const std::string whole = [&] {
      std::ifstream file(test::fixture(std::string(name) + ".json"));
      return std::string(std::istreambuf_iterator<char>(file), {});
    }();
    for (int round = 0; round < 300; ++round) {
      std::string file = whole;
      // Mostly before the vocabulary, where the other fields are.
      const std::size_t offset = random.below(random.below(4) == 0 ? file.size() : 1500);
      switch (random.below(3)) {
        case 0:
          file.erase(offset, 1 + random.below(40));
          break;
        case 1:
          file.insert(offset, fragments[random.below(std::size(fragments))]);
          break;
        default:
          file[offset] = static_cast<char>(random.below(256));
      }
      try {
        const BpeTokenizer tokenizer = test::parse_tokenizer(file);
        tokenizer.decode(tokenizer.encode("Hello <s> WORD 123\n"));
      } catch (const std::runtime_error& error) {
        REQUIRE(test::is_utf8(error.what()));
      } catch (const std::invalid_argument& error) {
        REQUIRE(test::is_utf8(error.what()));
      }
    }
  }
}

TEST_CASE("A file that cannot be read is named", "[tokenizers]") {
  const test::Folder folder;
  const auto path = folder / "tokenizer.json";
  CHECK(test::message_of<std::runtime_error>([&] {
          load_tokenizer(path);
        }).starts_with(path.string() + ": cannot be opened"));
  test::write_bytes(path, "{}");
  CHECK(test::message_of<std::runtime_error>([&] {
          load_tokenizer(path);
        }).starts_with(path.string() + ": model is missing"));
}
