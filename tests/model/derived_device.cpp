// A device derived from the CPU's that overloads one operation, as profilers and ranks do.
#include <cstddef>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"
#include "support/catch.hpp"

namespace user {

/// Counts scans.
class CountingDevice : public moe_mamba::cpu::Device {
 public:
  using moe_mamba::cpu::Device::Device;
  int scans = 0, steps = 0;
};

template <class C, class S, int N>
void selective_scan(CountingDevice& device, const moe_mamba::SelectiveScan<C, S, N>& scan) {
  ++device.scans;
  device.steps += static_cast<int>(scan.shape.tokens());
  moe_mamba::cpu::selective_scan(device, scan);
}

}  // namespace user

using namespace moe_mamba;

namespace {

using Net = LanguageModel<Vocabulary<7>, Width<6>, Repeat<3, Mamba<State<4>>, Moe<Experts<3>, Hidden<5>>>>;

template <class Backend>
std::vector<float> outputs(Backend& device, Index length) {
  const Model<Net, float, Backend> model(Seed{1});
  Workspace<Net, float, Backend> workspace(device, {2, length});
  std::vector<Token> tokens(static_cast<std::size_t>(2 * length));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<Token>(i * i % 7);
  std::vector<float> result(tokens.size() * 7);
  model.forward(workspace, tokens, {2, length}, result);
  return result;
}

}  // namespace

TEST_CASE("A device derived from the CPU's may overload one operation", "[model][user]") {
  Cpu cpu;
  user::CountingDevice counting;
  CHECK(outputs(counting, 5) == outputs(cpu, 5));
  CHECK(counting.scans == 3);  // a layer each
  CHECK(counting.steps == 3 * 2 * 5);
}
