// Products of many experts relative to one of the same size: the fraction of cuBLAS's rate that is reached when the
// rows of a product belong to groups whose sizes only the device knows.
//
//   nvcc -std=c++20 -arch=native -O2 -I include -I tests -I benchmarks moe.cu -o moe -lcublas && ./moe [quick]
#include <cstdio>
#include <cstring>
#include <vector>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"

using namespace moe_mamba;
using benchmarks::Filled;
using benchmarks::milliseconds;

namespace {

/// Groups as from random routing: sizes vary by their square root.
std::vector<Index> draw_offsets(Index rows, Index experts) {
  Random random(Seed{3});
  std::vector<Index> offsets(static_cast<std::size_t>(experts) + 1);
  for (Index row = 0; row < rows; ++row) ++offsets[1 + random.below(static_cast<std::uint64_t>(experts))];
  for (std::size_t e = 1; e < offsets.size(); ++e) offsets[e] += offsets[e - 1];
  return offsets;
}

template <class S>
void measure(cuda::Device& device, const char* type, Index experts, Index top_k, Index tokens, Index width,
             Index hidden) {
  const Index rows = tokens * top_k;
  const auto host_offsets = draw_offsets(rows, experts);
  Filled<Index> offsets(experts + 1);
  cuda::check(
      cudaMemcpy(offsets.data(), host_offsets.data(), host_offsets.size() * sizeof(Index), cudaMemcpyHostToDevice),
      "cudaMemcpy");
  const Groups groups{offsets.data(), experts};
  Filled<S> narrow(rows * width), wide(rows * hidden);
  Filled<S> weights(experts * width * hidden);
  Filled<float> gradients(experts * width * hidden);
  const auto x = matrix(narrow.data(), rows, width), y = matrix(wide.data(), rows, hidden);
  const MatrixView<const S> one{weights.data(), hidden, width, width}, back{weights.data(), width, hidden, hidden};
  const MatrixStack<const S> up{weights.data(), hidden, width}, down{weights.data(), width, hidden};
  const double flops = 2.0 * double(rows) * double(width) * double(hidden);
  const int repetitions = flops > 2e11 ? 3 : 7;

  const auto time = [&](const auto& call) { return milliseconds(device, repetitions, call); };
  struct Pair {
    const char* name;
    double grouped, dense;
  };
  const Pair pairs[] = {
      {"up", time([&] { grouped_linear(device, groups, x, up, y); }), time([&] { linear(device, x, one, y); })},
      {"down", time([&] { grouped_linear(device, groups, y, down, x); }), time([&] { linear(device, y, back, x); })},
      {"dx", time([&] { grouped_linear_backward_input(device, groups, y, up, x, Into::assign); }),
       time([&] { linear_backward_input(device, y, one, x, Into::assign); })},
      {"dW", time([&] {
         grouped_linear_backward_weight<S>(device, groups, y, x, MatrixStack<float>{gradients.data(), hidden, width},
                                           Into::assign);
       }),
       time([&] { linear_backward_weight<S>(device, y, x, matrix(gradients.data(), hidden, width)); })},
  };
  std::printf("%-8s %4td %3td %6td %5td %5td", type, experts, top_k, tokens, width, hidden);
  for (const Pair& pair : pairs) {
    std::printf(" | %4s %6.1f TF/s %4.0f %%", pair.name, flops / pair.grouped * 1e-9, 100 * pair.dense / pair.grouped);
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cuda::Device device, tf32({.products = FloatProducts::tf32});
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("%s\n%% of linear(), which is cuBLAS, on one matrix with the same rows\n", properties.name);
  std::printf("type  experts top tokens width hidden\n");
  struct Widths {
    Index width, hidden;
  };
  for (const Widths widths : {Widths{512, 1536}, {1024, 4096}}) {
    for (const Index tokens : {4096, 16384, 65536}) {
      for (const Index experts : {8, 32, 128}) {
        for (const Index top_k : {1, 2}) {
          if (quick && (top_k == 2 || widths.width != 1024)) continue;
          measure<bfloat16>(device, "bfloat16", experts, top_k, tokens, widths.width, widths.hidden);
          if (tokens * widths.width <= 65536 * 512 && (!quick || (tokens == 16384 && experts != 32))) {
            measure<float>(device, "float", experts, top_k, tokens, widths.width, widths.hidden);
            measure<float>(tf32, "tf32", experts, top_k, tokens, widths.width, widths.hidden);
          }
        }
      }
    }
  }
}
