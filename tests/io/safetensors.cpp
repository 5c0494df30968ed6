#include "moe_mamba/io/safetensors.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <typeinfo>

#include "moe_mamba/core/random.hpp"
#include "moe_mamba/io/safetensors_reader.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;

namespace {

std::span<const std::byte> bytes_in(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A file from an arbitrary header and data.
std::string file_of(const std::string& header, const std::string& data) {
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i) file[std::size_t(i)] = static_cast<char>((header.size() >> (8 * i)) & 0xff);
  return file + header + data;
}

/// The message with which a file is refused, "" if it is not; any other exception fails the test.
std::string refusal(const std::string& file) {
  return test::message_of<std::runtime_error>([&] { parse_safetensors(bytes_in(file), "a.safetensors"); });
}

std::string refusal(const std::string& header, std::size_t data_bytes) {
  return refusal(file_of(header, std::string(data_bytes, 'x')));
}

bool holds(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

/// Every part must be in the message, and the file's name always.
void require_refused(const std::string& message, std::initializer_list<const char*> parts) {
  INFO(message);
  CHECK(holds(message, "a.safetensors: "));
  for (const char* part : parts) {
    INFO(part);
    CHECK(holds(message, part));
  }
}

/// Three small tensors, one of them empty, and metadata.
std::string small_file() {
  return file_of(
      R"({"__metadata__":{"made by":"a test"},"weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("none":{"dtype":"I64","shape":[0,5],"data_offsets":[24,24]},"one":{"dtype":"U8","shape":[],"data_offsets":[24,25]}}  )",
      "abcdefghijklmnopqrstuvwxy");
}

}  // namespace

TEST_CASE("A saved file loads with the same tensors in the same order, for all types and shapes", "[io]") {
  const test::Folder folder;
  Random random(Seed{11});
  const DataType types[] = {DataType::F64,     DataType::F32, DataType::F16, DataType::BF16, DataType::F8_E4M3,
                            DataType::F8_E5M2, DataType::I64, DataType::I32, DataType::I16,  DataType::I8,
                            DataType::U64,     DataType::U32, DataType::U16, DataType::U8,   DataType::BOOL};
  for (int count : {0, 1, 2, 15, 40}) {
    std::vector<std::string> data;
    std::vector<TensorSource> sources;
    for (int i = 0; i < count; ++i) {
      TensorSource source;
      source.name = "layer." + std::to_string((i * 7) % 41) + (i % 3 == 0 ? ".\"\\\n\xC3\xA9" : ".weight");
      source.type = types[std::size_t(i) % std::size(types)];
      for (auto rank = random.below(4); rank > 0; --rank) source.shape.push_back(Index(random.below(5)));
      std::string content(std::size_t(detail::tensor_bytes(source.type, source.shape)), ' ');
      for (char& c : content) c = static_cast<char>(random.bits());
      data.push_back(content);
      sources.push_back(source);
    }
    for (std::size_t i = 0; i < sources.size(); ++i) sources[i].data = bytes_in(data[i]);
    const std::map<std::string, std::string> metadata =
        count % 2 == 0 ? std::map<std::string, std::string>{}
                       : std::map<std::string, std::string>{{"format", "pt"}, {"\t", "\xE2\x82\xAC"}, {"", ""}};
    save_safetensors(folder / "a", sources, metadata);

    SafetensorsFile opened(folder / "a");
    const SafetensorsFile file = std::move(opened);  // entries must survive a move
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == sources.size());
    for (std::size_t i = 0; i < sources.size(); ++i) {
      INFO("tensor " << i << " of " << count);
      // Empty tensors share their offset with a neighbour and may be swapped with it, never with others.
      const TensorEntry& entry = sources[i].data.empty() ? file.at(sources[i].name) : file.tensors()[i];
      CHECK(entry.name == sources[i].name);
      CHECK(entry.type == sources[i].type);
      CHECK(entry.shape == sources[i].shape);
      CHECK(std::string(reinterpret_cast<const char*>(entry.data.data()), entry.data.size()) == data[i]);
      CHECK(file.find(sources[i].name) == &file.at(sources[i].name));
    }
    const std::string raw = test::read_bytes(folder / "a");
    const auto header_bytes = static_cast<unsigned char>(raw[0]) + 256u * static_cast<unsigned char>(raw[1]);
    CHECK((8 + header_bytes) % 64 == 0);
    CHECK(file.find("absent") == nullptr);
    const auto message = test::message_of<std::runtime_error>([&] { file.at("absent"); });
    CHECK(holds(message, "tensor \"absent\" is missing"));
    CHECK(folder.entries() == 1);
  }
}

TEST_CASE("A header with spaces, escapes and tensors out of order is read", "[io]") {
  const std::string file = file_of(
      "{ \"b\\u0041\" : {\"shape\":[ 1 ],\"data_offsets\":[4,6],\"dtype\":\"BF16\"},\n"
      "\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4],\"shape\":[1,1,1]}}\t \n",
      "012345");
  const auto contents = parse_safetensors(bytes_in(file), "a");
  REQUIRE(contents.tensors.size() == 2);
  CHECK(contents.tensors[0].name == "a");
  CHECK(contents.tensors[0].shape == std::vector<Index>{1, 1, 1});
  CHECK(contents.tensors[1].name == "bA");
  CHECK(contents.tensors[1].type == DataType::BF16);
  CHECK(contents.tensors[1].data.data() == bytes_in(file).data() + file.size() - 2);
  CHECK(parse_safetensors(bytes_in(file_of("{}", "")), "a").tensors.empty());
}

TEST_CASE("A file truncated anywhere is refused, and so is one with extra bytes", "[io]") {
  const std::string whole = small_file();
  REQUIRE(refusal(whole) == "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    INFO(size);
    CHECK(holds(refusal(whole.substr(0, size)), "a.safetensors: "));
  }
  require_refused(refusal(whole + "x"), {"data after the header is 26 bytes", "the 25 bytes"});

  const test::Folder folder;
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, std::size_t{8}, whole.size() - 1}) {
    test::write_bytes(folder / "cut", whole.substr(0, size));
    const auto message = test::message_of<std::runtime_error>([&] { SafetensorsFile file(folder / "cut"); });
    CHECK(holds(message, (folder / "cut").string()));
  }
}

TEST_CASE("A file with any one bit flipped loads with the same tensors or is refused", "[io]") {
  const std::string whole = small_file();
  const auto expected = parse_safetensors(bytes_in(whole), "a");
  const std::size_t header_end = whole.size() - 25;
  int loaded = 0;
  for (std::size_t bit = 0; bit < 8 * header_end; ++bit) {
    INFO("bit " << bit);
    std::string file = whole;
    file[bit / 8] = static_cast<char>(file[bit / 8] ^ (1 << (bit % 8)));
    std::optional<SafetensorsContents> contents;
    try {
      contents = parse_safetensors(bytes_in(file), "a.safetensors");
    } catch (const std::runtime_error& error) {
      CHECK(typeid(error) == typeid(FileError));  // not something derived from it that a library threw
      continue;
    }
    // The only remaining change is a character of a name or of the metadata.
    ++loaded;
    REQUIRE(contents->tensors.size() == expected.tensors.size());
    for (std::size_t i = 0; i < expected.tensors.size(); ++i) {
      const TensorEntry &a = contents->tensors[i], &b = expected.tensors[i];
      CHECK(a.type == b.type);
      if (!b.data.empty()) CHECK(a.shape == b.shape);  // [0, 5] and [0, 4] take the same bytes: none
      REQUIRE(a.data.size() == b.data.size());
      CHECK(std::memcmp(a.data.data(), b.data.data(), a.data.size()) == 0);
      CHECK(a.name.size() <= b.name.size());
    }
  }
  CHECK(loaded > 0);
  CHECK(loaded < int(header_end));
}

TEST_CASE("Random damage of a file never does worse than an error", "[io]") {
  Random random(Seed{5});
  const std::string whole = small_file();
  const std::string fragments[] = {"\"", "{",  "}",   "[",    "]",       ",",
                                   ":",  "-1", "1e9", "null", "\\u0000", "99999999999999999999"};
  for (int round = 0; round < 20000; ++round) {
    std::string file = whole;
    for (auto edits = 1 + random.below(4); edits > 0; --edits) {
      const std::size_t offset = 8 + random.below(file.size() - 8);
      switch (random.below(4)) {
        case 0:
          file[offset] = static_cast<char>(random.bits());
          break;
        case 1:
          file.erase(offset, 1 + random.below(8));
          break;
        case 2:
          file.insert(offset, fragments[random.below(std::size(fragments))]);
          break;
        default:
          file.insert(offset, file.substr(8 + random.below(file.size() - 8), random.below(40)));
          break;
      }
      if (file.size() < 20) break;
    }
    // The length is corrected, so that the damage reaches the parser.
    const std::size_t header = file.size() > 33 ? file.size() - 33 : 0;
    for (int i = 0; i < 8; ++i) file[std::size_t(i)] = static_cast<char>((header >> (8 * i)) & 0xff);
    try {
      const auto contents = parse_safetensors(bytes_in(file), "a");
      for (const TensorEntry& entry : contents.tensors) {
        REQUIRE(entry.data.data() >= bytes_in(file).data());
        REQUIRE(entry.data.data() + entry.data.size() <= bytes_in(file).data() + file.size());
      }
    } catch (const std::runtime_error&) {
    }
  }
}

TEST_CASE("Hostile headers are refused by name", "[io]") {
  const auto length = [](std::uint64_t value) {
    std::string file(8, '\0');
    for (int i = 0; i < 8; ++i) file[std::size_t(i)] = static_cast<char>((value >> (8 * i)) & 0xff);
    return file + "{}";
  };
  require_refused(refusal(length(0)), {"header length is 0", "allowed: 2 in a file of 10 bytes"});
  require_refused(refusal(length(1)), {"header length is 1"});
  require_refused(refusal(length(3)),
                  {".safetensors: the file is truncated: header length is 3", "allowed: 2 in a file of 10 bytes"});
  require_refused(refusal("Once upon a time there was a text."),
                  {".safetensors: not a safetensors file: header length is"});
  require_refused(refusal(length(~std::uint64_t{0})), {"header length is 18446744073709551615"});
  require_refused(refusal(length(~std::uint64_t{0} - 7)), {"header length is 18446744073709551608"});
  {
    std::string large(100'000'001, ' ');
    large[0] = '{';
    require_refused(refusal(file_of(large, "")), {"header length is 100000001", "2 to 100000000"});
  }

  require_refused(refusal("[]", 0), {"first byte is \"[\""});
  require_refused(refusal(" {}", 0), {"first byte"});
  require_refused(refusal("\xEF\xBB\xBF{}", 0), {"first byte"});
  require_refused(refusal("{}}", 0), {"header is not valid at byte"});
  require_refused(refusal(std::string("{}\0\0", 4), 0), {"header byte 2 is zero"});
  require_refused(refusal("{\"a\xFF\":1}", 0), {"header is not valid"});
  require_refused(refusal("{\"a\":NaN}", 0), {"header is not valid"});
  require_refused(refusal("{\"a\":1e999}", 0), {"tensor \"a\" is 1e999", "an object of dtype"});
  require_refused(refusal("{\"a\":{\"dtype\":\"F32\",}}", 0), {"header is not valid"});

  // As deep as a file may be: refused at the third level, in no time and without using up the stack.
  std::string deep = "{\"a\":{\"shape\":";
  deep += std::string(20'000'000, '[');
  require_refused(refusal(deep, 0), {"tensor \"a\": shape element is an array"});
  std::string objects = "{\"a\":";
  for (int i = 0; i < 1'000'000; ++i) objects += "{\"shape\":";
  require_refused(refusal(objects, 0), {"tensor \"a\": shape is an object"});

  for (const char* value : {"1", "-1", "1.5", "null", "true", "\"F32\"", "[]"}) {
    INFO(value);
    require_refused(refusal("{\"a\":" + std::string(value) + "}", 0), {"tensor \"a\" is ", "an object of dtype"});
    require_refused(refusal("{\"__metadata__\":" + std::string(value) + "}", 0), {"__metadata__ is "});
  }
  for (const char* value : {"1", "-1", "1.5", "null", "true", "[]", "{}"}) {
    INFO(value);
    require_refused(refusal("{\"__metadata__\":{\"k\":" + std::string(value) + "}}", 0),
                    {"__metadata__ \"k\" is ", "a string"});
    require_refused(refusal("{\"a\":{\"dtype\":" + std::string(value) + "}}", 0),
                    {"tensor \"a\": dtype is ", "a string"});
  }
  for (const char* value : {"-1", "-0", "1.0", "1e3", "null", "true", "\"1\"", "[]", "{}", "9223372036854775808",
                            "18446744073709551616", "99999999999999999999999"}) {
    INFO(value);
    const std::string v = value;
    require_refused(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[" + v + "],\"data_offsets\":[0,4]}}", 4),
                    {"tensor \"a\": shape element is ", "an integer from 0"});
    require_refused(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0," + v + "]}}", 4),
                    {"tensor \"a\": data_offsets element is "});
    require_refused(refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[" + v + ",4]}}", 4),
                    {"tensor \"a\": data_offsets element is "});
  }
}

TEST_CASE("Tensors that do not fit their file are refused by name", "[io]") {
  const auto tensor = [](const std::string& type, const std::string& shape, const std::string& offsets) {
    return "{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
  };
  const auto one = [&](const std::string& type, const std::string& shape, const std::string& offsets,
                       std::size_t data) { return refusal("{\"a\":" + tensor(type, shape, offsets) + "}", data); };
  REQUIRE(one("F32", "[1]", "[0,4]", 4) == "");
  require_refused(one("F31", "[1]", "[0,4]", 4), {"tensor \"a\": dtype is \"F31\"", "F64, F32, F16, BF16"});
  require_refused(one("f32", "[1]", "[0,4]", 4), {"dtype is \"f32\""});
  require_refused(one("", "[1]", "[0,4]", 4), {"dtype is \"\""});
  require_refused(one("F32", "[1]", "[0,5]", 5), {"data_offsets is [0, 5]", "4 bytes"});
  require_refused(one("F32", "[2]", "[0,4]", 4), {"data_offsets is [0, 4]", "8 bytes"});
  require_refused(one("F32", "[1]", "[4,0]", 4), {"data_offsets is [4, 0]", "begin <= end"});
  require_refused(one("F32", "[1]", "[4,8]", 4),
                  {"the file is truncated: tensor \"a\": data_offsets is [4, 8]", "at most the 4 bytes"});
  require_refused(one("F32", "[1]", "[0,9223372036854775807]", 4), {"at most the 4 bytes"});
  require_refused(one("F32", "[1]", "[]", 4), {"data_offsets is not a pair"});
  require_refused(one("F32", "[1]", "[0]", 4), {"data_offsets is not a pair"});
  require_refused(one("F32", "[1]", "[0,4,4]", 4), {"data_offsets is longer than 2"});
  require_refused(one("F32", "4", "[0,4]", 4), {"shape is 4", "an array"});
  require_refused(one("F32", "[1]", "4", 4), {"data_offsets is 4", "an array"});
  // Products that overflow to the right number of bytes.
  require_refused(one("F32", "[4611686018427387904]", "[0,0]", 0), {"shape is [4611686018427387904]", "2^63"});
  require_refused(one("U8", "[4294967296,4294967296]", "[0,0]", 0), {"shape is [4294967296, 4294967296]"});
  require_refused(one("U8", "[4294967297,4294967297]", "[0,1]", 1), {"shape is "});
  require_refused(one("U8", "[4294967296,4294967296,0]", "[0,0]", 0), {"shape is "});
  require_refused(one("U8", "[0,9223372036854775807,9223372036854775807]", "[0,0]", 0), {"shape is "});
  std::string ranks = "[1";
  for (int i = 1; i < 65; ++i) ranks += ",1";
  require_refused(one("U8", ranks + "]", "[0,1]", 1), {"shape is longer than 64"});
  REQUIRE(one("U8", "[0,9223372036854775807]", "[0,0]", 0) == "");

  const auto two = [&](const std::string& a, const std::string& b, std::size_t data) {
    return refusal("{\"a\":" + tensor("U8", "[4]", a) + ",\"b\":" + tensor("U8", "[4]", b) + "}", data);
  };
  REQUIRE(two("[4,8]", "[0,4]", 8) == "");
  require_refused(two("[0,4]", "[0,4]", 4), {"tensor \"b\": data_offsets is [0, 4]", "begin = 4", "no holes"});
  require_refused(two("[0,4]", "[3,7]", 7), {"tensor \"b\": data_offsets is [3, 7]"});
  require_refused(two("[0,4]", "[5,9]", 9), {"tensor \"b\": data_offsets is [5, 9]"});
  require_refused(two("[1,5]", "[5,9]", 9), {"tensor \"a\": data_offsets is [1, 5]", "begin = 0"});
  require_refused(two("[0,4]", "[4,8]", 9), {"data after the header is 9 bytes", "the 8 bytes"});

  const std::string first = tensor("U8", "[4]", "[0,4]"), second = tensor("U8", "[4]", "[4,8]");
  require_refused(refusal("{\"a\":" + first + ",\"a\":" + second + "}", 8), {"duplicate tensor name \"a\""});
  require_refused(refusal("{\"a\":" + first + ",\"\\u0061\":" + second + "}", 8), {"duplicate tensor name \"a\""});
  require_refused(refusal("{\"__metadata__\":{},\"__metadata__\":{},\"a\":" + first + "}", 4),
                  {"duplicate key \"__metadata__\""});
  require_refused(refusal(R"({"__metadata__":{"k":"1","k":"1"}})", 0), {"duplicate metadata key \"k\""});
  require_refused(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4),
                  {"duplicate field dtype of tensor \"a\""});
  require_refused(refusal(R"({"a":{"dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4]}})", 4),
                  {"duplicate field shape of tensor \"a\""});
  require_refused(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"data_offsets":[0,4]}})", 4),
                  {"duplicate field data_offsets of tensor \"a\""});
  require_refused(refusal(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}})", 4), {"a field is \"x\""});
  require_refused(refusal(R"({"a":{"shape":[4],"data_offsets":[0,4]}})", 4), {"dtype is missing"});
  require_refused(refusal(R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", 4), {"shape is missing"});
  require_refused(refusal(R"({"a":{"dtype":"U8","shape":[4]}})", 4), {"data_offsets is not a pair"});
  require_refused(refusal(R"({"a":{}})", 0), {"dtype is missing"});
  // A name from a hostile file must not send control characters to the terminal.
  require_refused(refusal("{\"\\u001b[2J\":1}", 0), {"\"\\x1b[2J\""});
}

TEST_CASE("Tensors that cannot be saved are refused before the file is touched", "[io]") {
  const test::Folder folder;
  const std::string four = "abcd";
  const auto refused = [&](std::vector<TensorSource> tensors, std::map<std::string, std::string> metadata = {}) {
    const auto message =
        test::message_of<std::invalid_argument>([&] { save_safetensors(folder / "a", tensors, metadata); });
    CHECK(folder.entries() == 0);
    return message;
  };
  const auto u8 = DataType::U8;
  CHECK(holds(refused({{"a", u8, {5}, bytes_in(four)}}), "tensor \"a\": bytes of data is 4; allowed: 5"));
  CHECK(holds(refused({{"a", u8, {-4}, bytes_in(four)}}), "tensor \"a\": extent is -4"));
  CHECK(holds(refused({{"a", u8, {Index{1} << 62, 4}, {}}}), "tensor \"a\": bytes of data"));
  CHECK(holds(refused({{"a", u8, {4}, bytes_in(four)}, {"b", u8, {0}, {}}, {"a", u8, {0}, {}}}),
              "duplicate tensor name \"a\""));
  CHECK(holds(refused({{"__metadata__", u8, {4}, bytes_in(four)}}), "tensor name is __metadata__"));
  CHECK(holds(refused({{"\xFF", u8, {4}, bytes_in(four)}}), "UTF-8"));
  CHECK(holds(refused({}, {{"k", "\xC3"}}), "metadata value"));
  CHECK(holds(refused({{"a", u8, std::vector<Index>(65, 1), {}}}), "at most 64"));
}

TEST_CASE("A name can be saved exactly when it can be read, and then it comes back", "[io]") {
  const test::Folder folder;
  Random random(Seed{3});
  // Bytes from around every border of the UTF-8 table (RFC 3629), so that valid and invalid names are both common.
  const unsigned char bytes[] = {0x01, 0x1f, 'a',  '"',  '\\', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf4, 0xf5};
  int saved = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string name;
    for (auto length = 1 + random.below(4); length > 0; --length) name += char(bytes[random.below(std::size(bytes))]);
    std::string plain;  // no characters that JSON escapes, so the reader sees the bytes themselves
    for (const char c : name) plain += static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' ? 'x' : c;
    const bool readable = refusal("{\"__metadata__\":{\"" + plain + "\":\"\"}}", 0).empty();
    std::string head;
    try {
      head = detail::safetensors_head({}, {{name, name}});
    } catch (const std::invalid_argument&) {
    }
    INFO(detail::in_quotes(name));
    REQUIRE(readable == !head.empty());
    ++(readable ? saved : refused);
    if (readable) REQUIRE(parse_safetensors(bytes_in(head), "a").metadata.at(name) == name);
  }
  CHECK(saved > 1000);
  CHECK(refused > 1000);
}

TEST_CASE("Missing, empty and special files are named", "[io]") {
  const test::Folder folder;
  const auto message = [](const std::filesystem::path& path) {
    return test::message_of<std::runtime_error>([&] { SafetensorsFile file(path); });
  };
  CHECK(holds(message(folder / "absent"), (folder / "absent").string() + ": cannot be opened for reading"));
  CHECK(holds(message(folder.path()), "not a regular file"));
  CHECK(holds(message("/dev/null"), "not a regular file"));
  test::write_bytes(folder / "empty", "");
  CHECK(holds(message(folder / "empty"), "it is empty"));
}
