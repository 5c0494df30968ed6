// Model files and checkpoints: damage is reported, and a kill loses nothing.
#include "moe_mamba/io/checkpoint.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <signal.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "model/passes.hpp"
#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"
#include "support/folder.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

using Net = test::TrainedNet;
using Wider = LanguageModel<Vocabulary<11>, Width<9>, Repeat<2, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;
using Longer = LanguageModel<Vocabulary<11>, Width<8>, Repeat<3, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;
using Shorter = LanguageModel<Vocabulary<11>, Width<8>, Repeat<1, Mamba<State<3>>, Moe<Experts<4>, Hidden<12>>>>;

std::vector<unsigned char> pattern(Index size) {
  std::vector<unsigned char> text(static_cast<std::size_t>(size));
  for (Index i = 0; i < size; ++i) text[static_cast<std::size_t>(i)] = static_cast<unsigned char>((i * i + i / 7) % 11);
  return text;
}

template <class S>
std::vector<std::byte> bytes(const Model<Net, S>& model) {
  const auto view = std::as_bytes(model.parameters());
  return {view.begin(), view.end()};
}

}  // namespace

TEST_CASE("files of another definition are refused naming both, or the tensor", "[io]") {
  const test::Folder folder;
  const auto path = folder.path() / "model.safetensors";
  const Model<Net> model(Seed{4});
  save(model, path);
  CHECK_THROWS_WITH(load<Wider>(path),
                    Contains("written by is " + spelling<Net>()) && Contains("allowed: " + spelling<Wider>()));
  constexpr OtherDefinition accepted = OtherDefinition::accepted;
  CHECK_THROWS_WITH(load<Wider>(path, accepted),
                    Contains("embedding.weight") && Contains("[11, 8]") && Contains("[11, 9]"));
  CHECK_THROWS_WITH(load<Longer>(path, accepted),
                    Contains("\"layers.4.norm.weight\" is missing; allowed: one of the ") &&
                        Contains(", such as \"layers.0.norm.weight\""));
  CHECK_THROWS_WITH(load<Shorter>(path, accepted), Contains("layers.2.norm.weight"));
  CHECK_THROWS_WITH(load<Net>(folder.path() / "absent"), Contains("absent"));

  Model<Wider> other(Seed{6}), same(Seed{6});
  CHECK_THROWS_AS(load(other, path), std::runtime_error);
  CHECK_THROWS_AS(load(other, path, accepted), std::runtime_error);
  CHECK(std::equal(other.parameters().begin(), other.parameters().end(), same.parameters().begin()));
}

TEST_CASE("a file that is not a checkpoint is refused, and trainer and model are unchanged", "[io]") {
  const test::Folder folder;
  const auto text = pattern(2000);
  auto batches = windows(text, Length{11}, Batch{2}, Seed{8});
  Model<Net> model(Seed{1}), twin(Seed{1});
  Trainer trainer(model), other(twin);
  const TokenBatch batch = batches.next();
  trainer.step(batch);
  other.step(batch);

  save(model, folder.path() / "model");
  CHECK_THROWS_WITH(load_checkpoint(folder.path() / "model", trainer),
                    Contains("model: is not a checkpoint: it holds a model without training state; load()"));

  Model<Net, double> wide(Seed{1});
  Trainer wide_trainer(wide);
  save_checkpoint(folder.path() / "wide", wide_trainer);
  CHECK_THROWS_WITH(load_checkpoint(folder.path() / "wide", trainer), Contains("F64") && Contains("F32"));

  save_checkpoint(folder.path() / "good", trainer, batches.state());
  std::string contents;
  {
    std::ifstream file(folder.path() / "good", std::ios::binary);
    contents.assign(std::istreambuf_iterator<char>(file), {});
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, contents.size() / 2, contents.size() - 1}) {
    std::ofstream(folder.path() / "cut", std::ios::binary) << contents.substr(0, size);
    CHECK_THROWS_AS(load_checkpoint(folder.path() / "cut", trainer), std::runtime_error);
  }
  const auto step = contents.find("\"moe_mamba.step\":\"1\"");
  REQUIRE(step != std::string::npos);
  std::string wrong = contents;
  wrong[step + 18] = 'x';
  std::ofstream(folder.path() / "wrong", std::ios::binary) << wrong;
  CHECK_THROWS_WITH(load_checkpoint(folder.path() / "wrong", trainer), Contains("checksum"));

  // Complete files with impossible contents.
  const SafetensorsFile good(folder.path() / "good");
  const auto refused = [&](const auto& change, const std::string& words) {
    std::vector<TensorSource> tensors;
    for (const TensorEntry& tensor : good.tensors()) {
      tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
    }
    auto metadata = good.metadata();
    change(tensors, metadata);
    save_safetensors(folder.path() / "odd", tensors, detail::with_checksum(metadata, tensors));
    CHECK_THROWS_WITH(load_checkpoint(folder.path() / "odd", trainer), Contains(words));
  };
  using Tensors = std::vector<TensorSource>;
  using Metadata = std::map<std::string, std::string>;
  for (const char* number : {"x", "", "-1", "1 ", "9223372036854775807", "18446744073709551616"}) {
    refused([&](Tensors&, Metadata& metadata) { metadata["moe_mamba.step"] = number; },
            std::string("\"moe_mamba.step\" is \"") + number + "\"; allowed: an integer from 0 to 9007199254740992");
  }
  refused([](Tensors&, Metadata& metadata) { metadata.erase("moe_mamba.windows.seed"); }, "moe_mamba.windows.seed");
  const auto moment = [](Tensors& tensors) -> TensorSource& {
    return *std::ranges::find(tensors, "training.first_moment", &TensorSource::name);
  };
  refused(
      [&](Tensors& tensors, Metadata&) {
        moment(tensors).shape = {1, moment(tensors).shape[0]};
      },
      "\"training.first_moment\": shape is [1, ");
  refused([&](Tensors& tensors, Metadata&) { moment(tensors).name = "training.unknown"; }, "training.unknown");
  const std::vector<std::byte> halves(2 * static_cast<std::size_t>(cost<Net>.parameters));
  refused(
      [&](Tensors& tensors, Metadata&) {
        tensors.push_back({"training.remainder", DataType::I16, {cost<Net>.parameters}, halves});
      },
      "training.remainder");
  {
    auto metadata = good.metadata();
    metadata.erase(detail::checksum_key);
    Tensors tensors;
    for (const TensorEntry& tensor : good.tensors()) {
      tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
    }
    save_safetensors(folder.path() / "odd", tensors, metadata);
    CHECK_THROWS_WITH(load_checkpoint(folder.path() / "odd", trainer), Contains("moe_mamba.checksum"));
  }

  CHECK(bytes(model) == bytes(twin));
  const TokenBatch next = batches.next();
  CHECK(trainer.step(next).loss == other.step(next).loss);
  CHECK(bytes(model) == bytes(twin));
}

TEST_CASE("a flipped bit in the data is noticed, in a model file and in a checkpoint", "[io]") {
  const test::Folder folder;
  Model<Net, bfloat16> model(Seed{1}), target(Seed{2}), before(Seed{2});
  Trainer trainer(model), other(target);
  save(model, folder / "model");
  save_checkpoint(folder / "checkpoint", trainer);
  Random random(Seed{3});
  for (const char* name : {"model", "checkpoint"}) {
    const std::string good = test::read_bytes(folder / name);
    std::uint64_t header = 0;
    std::memcpy(&header, good.data(), sizeof header);
    const std::size_t data = sizeof header + header;
    for (int repeat = 0; repeat < 100; ++repeat) {
      std::string bad = good;
      const std::size_t at = repeat == 0 ? data : data + random.below(good.size() - data);
      bad[at] = static_cast<char>(bad[at] ^ (1 << random.below(8)));
      test::write_bytes(folder / "bad", bad);
      CHECK_THROWS_WITH(load(target, folder / "bad"), Contains("checksum") && Contains("damaged"));
      const bool is_checkpoint = std::string(name) == "checkpoint";
      CHECK_THROWS_WITH(load_checkpoint(folder / "bad", other),
                        Contains(is_checkpoint ? "checksum" : "not a checkpoint"));
    }
    CHECK(bytes(target) == bytes(before));
  }
  // Nor is a checkpoint resumed if a bit outside the data is flipped.
  const std::string good = test::read_bytes(folder / "checkpoint");
  const std::size_t from = good.find("__metadata__"), to = good.find('}', from);
  for (std::size_t at = from; at < to; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << random.below(8)));
    test::write_bytes(folder / "bad", bad);
    CHECK_THROWS_AS(load_checkpoint(folder / "bad", other), std::runtime_error);
  }
  CHECK(bytes(target) == bytes(before));
  // Files from other programs have no checksum and are accepted.
  const auto tensors = detail::parameter_tensors<Net, bfloat16>(std::as_const(model).parameters());
  save_safetensors(folder / "foreign", tensors);
  load(target, folder / "foreign");
  CHECK(bytes(target) == bytes(model));
}

TEST_CASE("a checkpoint of a bfloat16 model has two more bytes per parameter, and requires them", "[io]") {
  const test::Folder folder;
  const auto text = pattern(2000);
  Model<Net, bfloat16> model(Seed{1}), target(Seed{2}), before(Seed{2});
  Trainer trainer(model), other(target);
  trainer.step(windows(text, Length{11}, Batch{2}, Seed{8}).next());
  save_checkpoint(folder / "good", trainer);
  const SafetensorsFile file(folder / "good");
  const TensorEntry& remainder = file.at("training.remainder");
  CHECK(remainder.type == DataType::I16);
  CHECK(remainder.shape == std::vector<Index>{cost<Net>.parameters});
  const auto kept = std::as_bytes(trainer.progress().remainder.span());
  CHECK(std::equal(kept.begin(), kept.end(), remainder.data.begin(), remainder.data.end()));

  std::vector<TensorSource> tensors;
  for (const TensorEntry& tensor : file.tensors()) {
    if (tensor.name != remainder.name) tensors.push_back({tensor.name, tensor.type, tensor.shape, tensor.data});
  }
  save_safetensors(folder / "without", tensors, detail::with_checksum(file.metadata(), tensors));
  CHECK_THROWS_WITH(load_checkpoint(folder / "without", other), Contains("training.remainder") && Contains("missing"));
  tensors.push_back({remainder.name, DataType::BF16, remainder.shape, remainder.data});
  save_safetensors(folder / "wrong", tensors, detail::with_checksum(file.metadata(), tensors));
  CHECK_THROWS_WITH(load_checkpoint(folder / "wrong", other),
                    Contains("training.remainder") && Contains("dtype is BF16; allowed: I16"));
  CHECK(bytes(target) == bytes(before));
}

TEST_CASE("the checksum depends on names and on every byte, but not on the order of tensors", "[io]") {
  std::vector<std::byte> a(100), b(37);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = std::byte(i);
  const auto sum = [](const std::vector<TensorSource>& tensors) {
    return detail::checksum(std::span<const TensorSource>(tensors), {});
  };
  const TensorSource x{"x", DataType::U8, {100}, a}, y{"y", DataType::U8, {37}, b}, z{"z", DataType::U8, {37}, b};
  const std::string whole = sum({x, y});
  CHECK(whole.size() == 16);
  CHECK(sum({y, x}) == whole);
  CHECK(sum({x, z}) != whole);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] ^= std::byte(1);
    CHECK(sum({x, y}) != whole);
    a[i] ^= std::byte(1);
  }
  CHECK(sum({x, y}) == whole);
  // Changed metadata are noticed too, except for the checksum itself.
  const std::vector<TensorSource> tensors = {x, y};
  const auto with = [&](const std::map<std::string, std::string>& metadata) {
    return detail::checksum(std::span<const TensorSource>(tensors), metadata);
  };
  CHECK(with({{detail::checksum_key, "anything"}}) == whole);
  CHECK(with({{"a", "1"}}) != whole);
  CHECK(with({{"a", "1"}, {"b", "2"}}) != with({{"a", "2"}, {"b", "1"}}));
  CHECK(with({{"a", "1"}}) != with({{"a", "3"}}));
}

TEST_CASE("an unwritable path is named, and no temporary file remains", "[io]") {
  const test::Folder folder;
  Model<Net> model(Seed{1});
  CHECK_THROWS_WITH(save(model, folder.path() / "absent" / "model"), Contains("absent"));
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a process killed while it saves leaves the old checkpoint or the new one", "[io]") {
  const test::Folder folder;
  const auto path = folder.path() / "run.safetensors";
  const auto text = pattern(2000);
  Random random(Seed{11});
  for (int kill_number = 0; kill_number < 25; ++kill_number) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      Model<Net> model(Seed{1});
      Trainer trainer(model);
      auto batches = windows(text, Length{11}, Batch{2}, Seed{8});
      for (;;) {
        trainer.step(batches.next());
        save_checkpoint(path, trainer, batches.state());
      }
    }
    usleep(static_cast<useconds_t>(random.below(30'000)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    if (!std::filesystem::exists(path)) continue;

    // The file must be a state of the run.
    Model<Net> model(Seed{2}), expected(Seed{1});
    Trainer trainer(model), replay(expected);
    const CheckpointInfo info = load_checkpoint(path, trainer);
    CHECK(static_cast<Index>(info.windows.position) == trainer.steps());
    auto batches = windows(text, Length{11}, Batch{2}, Seed{8});
    for (Index i = 0; i < trainer.steps(); ++i) replay.step(batches.next());
    CHECK(bytes(model) == bytes(expected));
  }
}
