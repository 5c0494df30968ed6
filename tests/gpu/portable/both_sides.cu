// A single-file program with models on both backends: nvcc's front end compiles the CPU backend as well.
#include <array>

#include "moe_mamba/cuda.cuh"
#include "moe_mamba/cuda.hpp"
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<3>, Outputs<2>, Width<5>, Mamba<State<4>>>;
template struct moe_mamba::PassesOf<Net, float, Cuda>;

template <class Backend, class Device>
void step(Device& device) {
  const Model<Net, float, Backend> model(Seed{1});
  Workspace<Net, float, Backend> workspace(device, {1, 1});
  const std::array<float, 3> x{};
  std::array<float, 2> y;
  model.forward(workspace, x, {1, 1}, y);
}

template void step<Cpu>(cpu::Device&);
template void step<Cuda>(cuda::Device&);
