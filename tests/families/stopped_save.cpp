// A save that is stopped between its files: the folder contains one of the two models, never a mixture.
#include <csignal>
#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "families/folders.hpp"

using namespace moe_mamba;
using test::Contains;

namespace {

int steps_left = 0;  // until the program is killed; 0: never

void step() {
  if (steps_left > 0 && --steps_left == 0) ::raise(SIGKILL);
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

template <int Inverse>
using Norm = RmsNorm<Epsilon<1, Inverse>>;
/// Models of the same tensors that compute different numbers.
template <int Inverse>
using Net = LanguageModel<Vocabulary<7>, Width<4>, PreNorm<Norm<Inverse>>, FinalNorm<Norm<Inverse>>, Mamba<State<2>>>;
using Older = Net<100'000>;
using Newer = Net<10>;

template <class Definition>
bool holds(const Pretrained& folder, const Model<Definition>& model) {
  try {
    const auto read = load<Definition>(folder);
    return std::equal(read.parameters().begin(), read.parameters().end(), model.parameters().begin());
  } catch (const std::runtime_error&) {
    return false;
  }
}

template <class Model>
int status_of_save(const Model& model, const Pretrained& folder, int steps) {
  const pid_t child = ::fork();
  if (child == 0) {
    steps_left = steps;
    save(model, folder);
    ::_exit(0);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

// These override the system library's.
extern "C" {
int rename(const char* from, const char* to) noexcept {
  step();
  return next<int(const char*, const char*)>("rename")(from, to);
}
int unlink(const char* path) noexcept {
  step();
  return next<int(const char*)>("unlink")(path);
}
int remove(const char* path) noexcept {
  step();
  return next<int(const char*)>("remove")(path);
}
int fsync(int file) {
  step();
  return next<int(int)>("fsync")(file);
}
}

TEST_CASE("A save that is killed leaves the old model or the new one", "[families]") {
  const Model<Older> older(Seed{1});
  const Model<Newer> newer(Seed{2});
  bool was_newer = false;
  int killed = 0;
  for (bool finished = false; !finished; ++killed) {
    const test::Folder folder;
    const Pretrained pretrained{folder / "model"};
    save(older, pretrained);
    const int status = status_of_save(newer, pretrained, killed + 1);
    finished = WIFEXITED(status);
    INFO("killed before step " << killed + 1);
    const bool has_newer = holds(pretrained, newer);
    CHECK(has_newer != holds(pretrained, older));
    CHECK(has_newer >= was_newer);
    was_newer = has_newer;
    // Leftovers do not harm a later save.
    save(older, pretrained);
    CHECK(holds(pretrained, older));
    CHECK(std::distance(std::filesystem::directory_iterator(pretrained.folder), {}) == 2);
  }
  CHECK(was_newer);
  CHECK(killed > 6);
}

TEST_CASE("A config that was saved with other tensors is refused unless its checksum is removed", "[families]") {
  const test::Folder folder;
  const Pretrained first{folder / "first"}, second{folder / "second"};
  save(Model<Older>(Seed{1}), first);
  save(Model<Older>(Seed{2}), second);
  std::filesystem::copy_file(first.folder / "config.json", second.folder / "config.json",
                             std::filesystem::copy_options::overwrite_existing);
  CHECK_THAT(test::message_of<std::runtime_error>([&] { (void)load<Older>(second); }),
             Contains("config.json: tensors_checksum is \"") && Contains("the checksum of model.safetensors"));
  test::edit(second.folder / "config.json", "tensors_checksum", "other");
  CHECK_NOTHROW(load<Older>(second));
  // Another edit leaves the two together.
  test::edit(first.folder / "config.json", "\"hidden_act\"", "\"eos_token_id\": 3, \"hidden_act\"");
  CHECK_NOTHROW(load<Older>(first));
}
