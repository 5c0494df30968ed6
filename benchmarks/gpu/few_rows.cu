// Products of many experts with few rows each, as in generation and small batches: bytes of the weights of those
// experts that have rows per unit of time, relative to a copy.
//
//   nvcc -std=c++20 -arch=native -O2 -I include -I tests -I benchmarks few_rows.cu -o few_rows -lcublas && ./few_rows [quick]
#include <cstdio>
#include <cstring>
#include <vector>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda/elementwise.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"

using namespace moe_mamba;
using benchmarks::Filled;

namespace {

/// Milliseconds per call of `calls` calls in a graph, call(0), call(1), …, which should read different memory.
template <class Call>
double milliseconds_of_many(cuda::Device& device, int calls, const Call& call) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
  for (int i = 0; i < calls; ++i) call(i);
  cuda::check(cudaStreamEndCapture(device.stream(), &graph), "cudaStreamEndCapture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  const double time = benchmarks::milliseconds(
      device, 7, [&] { cuda::check(cudaGraphLaunch(executable, device.stream()), "cudaGraphLaunch"); });
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return time / calls;
}

class Experts {
 public:
  Experts(cuda::Device& device, double copy_rate, Index experts, Index width, Index hidden)
      : device_(device),
        copy_rate_(copy_rate),
        experts_(experts),
        width_(width),
        hidden_(hidden),
        sets_(std::max<Index>(1, (Index{512} << 20) / (experts * width * hidden))),
        weights_(sets_ * experts * width * hidden),
        narrow_(64 * experts * width),
        wide_(64 * experts * hidden) {}

  /// `rows` rows for each expert.
  void measure_even(Index rows) {
    std::vector<Index> offsets;
    for (Index e = 0; e <= experts_; ++e) offsets.push_back(e * rows);
    measure({offsets}, experts_);
  }

  /// One row for each of `top_k` experts, different ones in every call.
  void measure_step(Index top_k) {
    Random random(Seed{5});
    std::vector<std::vector<Index>> choices;
    for (int choice = 0; choice < 32; ++choice) {
      std::vector<Index> offsets(static_cast<std::size_t>(experts_) + 1);
      for (Index chosen = 0; chosen < top_k;) {
        auto& count = offsets[1 + random.below(static_cast<std::uint64_t>(experts_))];
        if (count == 0) ++count, ++chosen;
      }
      for (std::size_t e = 1; e < offsets.size(); ++e) offsets[e] += offsets[e - 1];
      choices.push_back(offsets);
    }
    measure(choices, top_k);
  }

 private:
  void measure(const std::vector<std::vector<Index>>& choices, Index chosen) {
    const Index rows = choices[0].back(), entries = experts_ + 1;
    Filled<Index> offsets(entries * Index(choices.size()));
    for (std::size_t choice = 0; choice < choices.size(); ++choice) {
      cuda::check(cudaMemcpy(offsets.data() + Index(choice) * entries, choices[choice].data(),
                             choices[choice].size() * sizeof(Index), cudaMemcpyHostToDevice),
                  "cudaMemcpy");
    }
    const auto x = matrix(narrow_.data(), rows, width_), y = matrix(wide_.data(), rows, hidden_);
    const auto groups = [&](int call) {
      return Groups{offsets.data() + Index(call) % Index(choices.size()) * entries, experts_};
    };
    const auto set = [&](int call) { return weights_.data() + Index(call) % sets_ * experts_ * width_ * hidden_; };
    const int calls = int(std::max<Index>(2, std::min<Index>(64, 2 * sets_)));
    const double bytes = double(chosen) * double(width_) * double(hidden_) * sizeof(bfloat16);
    std::printf("%4td experts %5td x %5td, %5td rows of %4td", experts_, width_, hidden_, rows, chosen);
    const auto print = [&](const char* name, double time) {
      std::printf(" | %4s %8.2f us %5.0f GB/s %3.0f %%", name, 1000 * time, bytes / time * 1e-6,
                  100 * bytes / time * 1e-6 / copy_rate_);
    };
    print("up", milliseconds_of_many(device_, calls, [&](int call) {
            grouped_linear(device_, groups(call), x, MatrixStack<const bfloat16>{set(call), hidden_, width_}, y);
          }));
    print("down", milliseconds_of_many(device_, calls, [&](int call) {
            grouped_linear(device_, groups(call), y, MatrixStack<const bfloat16>{set(call), width_, hidden_}, x);
          }));
    if (rows > chosen) {
      print("dx", milliseconds_of_many(device_, calls, [&](int call) {
              grouped_linear_backward_input(device_, groups(call), y,
                                            MatrixStack<const bfloat16>{set(call), hidden_, width_}, x, Into::assign);
            }));
    }
    std::printf("\n");
  }

  cuda::Device& device_;
  double copy_rate_;
  Index experts_, width_, hidden_, sets_;
  Filled<bfloat16> weights_;
  Filled<bfloat16> narrow_, wide_;
};

}  // namespace

int main(int argc, char** argv) {
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cuda::Device device;
  double copy_rate = 0;  // GB/s
  {
    constexpr Index rows = 65536, columns = 4096;
    Filled<float> from(rows * columns), to(rows * columns);
    const double time = benchmarks::milliseconds(device, 5, [&] {
      copy(device, matrix<const float>(from.data(), rows, columns), matrix(to.data(), rows, columns));
    });
    copy_rate = 8.0 * double(rows * columns) / time * 1e-6;
    std::printf("copy %.0f GB/s; bfloat16 weights, %% of it\n", copy_rate);
  }
  struct Widths {
    Index width, hidden;
  };
  for (const Widths widths : {Widths{1024, 4096}, {2560, 6144}}) {
    for (const Index experts : {8, 32, 128}) {
      if (quick && experts == 32) continue;
      Experts of(device, copy_rate, experts, widths.width, widths.hidden);
      of.measure_step(1);
      of.measure_step(2);
      for (const Index rows : {1, 2, 4, 8, 16, 32, 64}) {
        if (!quick || (rows != 4 && rows != 16)) of.measure_even(rows);
      }
    }
  }
}
