#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "moe_mamba/cuda/causal_convolution/backward.cuh"
#include "moe_mamba/cuda/causal_convolution/forward.cuh"
#include "moe_mamba/cuda/selective_scan/selective_scan.cuh"

/// The scan and the convolution on a GPU: medians of event times, and the lower bound as a fraction of them. The lower
/// bound is the larger of the time to move each element once, at the rate of a large copy, and the time of the powers
/// of two and reciprocals, both at rates measured here.
namespace {

using namespace moe_mamba;
using cuda::check;

constexpr int N = 16, K = 4;

/// Uniform in [low, high).
template <class T>
__global__ void fill_kernel(T* values, Index count, unsigned seed, float low, float high) {
  for (Index i = Index{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += Index{gridDim.x} * blockDim.x) {
    unsigned bits = static_cast<unsigned>(i) * 2654435761u ^ static_cast<unsigned>(i >> 32) ^ seed * 40503u;
    bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
    bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
    values[i] = T(low + (high - low) * static_cast<float>((bits ^ (bits >> 16)) >> 8) * 0x1p-24f);
  }
}

/// Powers of two only.
template <int Chains>
__global__ void powers_kernel(float* to, int rounds) {
  float values[Chains];
  for (int i = 0; i < Chains; ++i) values[i] = static_cast<float>(threadIdx.x + i) * -1e-3f;
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int i = 0; i < Chains; ++i) values[i] = cuda::detail::power_of_two(values[i]);
  }
  float sum = 0;
  for (int i = 0; i < Chains; ++i) sum += values[i];
  to[Index{blockIdx.x} * blockDim.x + threadIdx.x] = sum;
}

template <class T>
T* filled(std::vector<cuda::Memory>& owner, Index count, unsigned seed, float low = -1, float high = 1) {
  owner.emplace_back(static_cast<std::size_t>(count) * sizeof(T));
  T* const values = reinterpret_cast<T*>(owner.back().data());
  fill_kernel<T><<<1024, 256>>>(values, count, seed, low, high);
  cuda::check_launch("fill");
  check(cudaDeviceSynchronize(), "fill");
  return values;
}

/// Median of the milliseconds that `work` takes.
template <class Work>
double milliseconds(const cuda::Device& device, const Work& work) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  std::vector<float> times;
  float total = 0;
  for (int i = 0; i < 2; ++i) work();
  for (int i = 0; i < 5 || (i < 21 && total < 100); ++i) {
    check(cudaEventRecord(begin, device.stream()), "record");
    work();
    check(cudaEventRecord(end, device.stream()), "record");
    check(cudaEventSynchronize(end), "synchronize");
    times.emplace_back();
    check(cudaEventElapsedTime(&times.back(), begin, end), "elapsed");
    total += times.back();
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

struct Ceilings {
  double bytes, powers;  // per millisecond
};

Ceilings measure_ceilings(const cuda::Device& device) {
  const std::size_t bytes = std::size_t{1} << 30;
  const cuda::Memory from(bytes), to(bytes);
  const double copy = milliseconds(device, [&] {
    check(cudaMemcpyAsync(to.data(), from.data(), bytes, cudaMemcpyDeviceToDevice, device.stream()), "copy");
  });
  constexpr int chains = 8, rounds = 2000;
  const int blocks = device.processors() * 4;
  const double powers = milliseconds(device, [&] {
    powers_kernel<chains><<<blocks, 512, 0, device.stream()>>>(reinterpret_cast<float*>(to.data()), rounds);
  });
  return {2.0 * static_cast<double>(bytes) / copy, 512.0 * blocks * chains * rounds / powers};
}

void report(const char* name, const char* type, Shape shape, Index width, double ms, double updates, double bytes,
            double powers, Ceilings ceilings) {
  const double memory = bytes / ceilings.bytes, special = powers / ceilings.powers;
  std::printf(
      "%-20s %-5s %3td x %6td x %5td %9.3f ms %7.4f ns/update %8.1f MB  memory %7.3f ms, powers %7.3f ms: %3.0f %%\n",
      name, type, shape.batch, shape.length, width, ms, 1e6 * ms / updates, bytes * 1e-6, memory, special,
      100 * std::max(memory, special) / ms);
  std::fflush(stdout);
}

/// Activations of type C, parameters of type S.
template <class C, class S = C>
void measure(cuda::Device& device, const char* type, Shape shape, Index width, Ceilings ceilings) {
  using T = compute_t<C>;
  std::vector<cuda::Memory> owner;
  const Index t = shape.tokens(), pieces = shape.batch * scan_checkpoints(shape.length);
  const auto wide = [&](unsigned seed, float low, float high) {
    return matrix(filled<C>(owner, t * width, seed, low, high), t, width);
  };
  const auto u = wide(1, -1, 1), delta = wide(2, -4, 1), z = wide(3, -3, 3), dy = wide(4, -1, 1), y = wide(5, -1, 1);
  const auto du = wide(6, -1, 1), ddelta = wide(7, -1, 1), dz = wide(8, -1, 1);
  const auto narrow = [&](unsigned seed) { return matrix(filled<C>(owner, t * N, seed), t, Index{N}); };
  const auto b = narrow(9), c = narrow(10), db = narrow(11), dc = narrow(12);
  const S* bias = filled<S>(owner, width, 13, -1, 0);
  const S* a_log = filled<S>(owner, width * N, 14, 0, 2.8f);
  const S* d = filled<S>(owner, width, 15);
  const S* weight = filled<S>(owner, width * K, 16);
  T* const gradients = filled<T>(owner, width * (N + K + 4), 17);
  T* const checkpoints = filled<T>(owner, pieces * N * width, 18);
  const StateView<T> state{filled<T>(owner, shape.batch * N * width, 19), N * width};
  const StateView<T> taps{filled<T>(owner, shape.batch * (K - 1) * width, 20), (K - 1) * width};
  owner.emplace_back(selective_scan_scratch<C>(device, shape, width, N));
  const Arena scratch(owner.back().data());

  const double elements = static_cast<double>(t) * static_cast<double>(width), updates = elements * N;
  const double size = sizeof(C), saved = sizeof(T) * static_cast<double>(pieces * N * width);
  const double narrow_bytes = 2 * size * N * static_cast<double>(t);
  const auto forward = [&](T* to) {
    return milliseconds(device, [&] {
      selective_scan(device, SelectiveScan<C, S, N>{shape, u, delta, b, c, z, bias, a_log, d, state, to, y, scratch});
    });
  };
  report("scan, inference", type, shape, width, forward(nullptr), updates, 4 * size * elements + narrow_bytes,
         (N + 3) * elements, ceilings);
  report("scan, training", type, shape, width, forward(checkpoints), updates,
         4 * size * elements + narrow_bytes + saved, (N + 3) * elements, ceilings);
  const double backward = milliseconds(device, [&] {
    selective_scan_backward(device, SelectiveScanBackward<C, S, N>{shape,
                                                                   u,
                                                                   delta,
                                                                   b,
                                                                   c,
                                                                   z,
                                                                   bias,
                                                                   a_log,
                                                                   d,
                                                                   checkpoints,
                                                                   dy,
                                                                   du,
                                                                   ddelta,
                                                                   dz,
                                                                   db,
                                                                   dc,
                                                                   gradients,
                                                                   gradients + width,
                                                                   gradients + width * (N + 1),
                                                                   state,
                                                                   scratch});
  });
  report("scan, backward", type, shape, width, backward, updates, 7 * size * elements + 2 * narrow_bytes + saved,
         (N + 5) * elements, ceilings);
  const double convolution = milliseconds(device, [&] {
    causal_convolution(device, CausalConvolution<C, S, K>{shape, u, weight, bias, taps, nullptr, y});
  });
  report("convolution", type, shape, width, convolution, elements, 2 * size * elements, 2 * elements, ceilings);
  const double convolution_back = milliseconds(device, [&] {
    causal_convolution_backward(device,
                                CausalConvolutionBackward<C, S, K>{shape, u, weight, bias, taps.data, dy, du, gradients,
                                                                   gradients + width * K, StateView<T>{}});
  });
  report("convolution, backward", type, shape, width, convolution_back, elements, 3 * size * elements, 2 * elements,
         ceilings);
}

/// The time of `work` in microseconds, from graphs of ten repetitions.
template <class Work>
double microseconds_of_ten(const cuda::Device& device, const Work& work) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal), "begin");
  for (int i = 0; i < 10; ++i) work();
  check(cudaStreamEndCapture(device.stream(), &graph), "end");
  check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  const double ms = milliseconds(device, [&] { check(cudaGraphLaunch(executable, device.stream()), "launch"); });
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  return 100 * ms;
}

/// A decoding step: one token per sequence.
template <class C>
void measure_step(cuda::Device& device, const char* type, Index batch, Index width) {
  using T = compute_t<C>;
  std::vector<cuda::Memory> owner;
  const auto rows = [&](unsigned seed) { return matrix(filled<C>(owner, batch * width, seed), batch, width); };
  const auto u = rows(1), delta = rows(2), z = rows(3), y = rows(4);
  const auto b = matrix(filled<C>(owner, batch * N, 5), batch, Index{N});
  const C* parameters = filled<C>(owner, width * (N + 2), 6);
  const C* weight = filled<C>(owner, width * K, 8);
  const StateView<T> state{filled<T>(owner, batch * N * width, 7), N * width};
  const StateView<T> taps{filled<T>(owner, batch * (K - 1) * width, 9), (K - 1) * width};
  const SelectiveScan<C, C, N> scan{
      {batch, 1},         u,     delta,   b, b,      z, parameters, parameters + 2 * width,
      parameters + width, state, nullptr, y, Arena()};
  const CausalConvolution<C, C, K> convolution{{batch, 1}, u, weight, parameters, taps, nullptr, y};
  const double us = microseconds_of_ten(device, [&] { selective_scan(device, scan); });
  const double convolution_us = microseconds_of_ten(device, [&] { causal_convolution(device, convolution); });
  const double states = 2.0 * sizeof(T) * N * static_cast<double>(batch * width);
  std::printf("a step of %td x %td, %s: scan %.2f us, states at %.0f GB/s; convolution %.2f us\n", batch, width, type,
              us, states / (1e3 * us), convolution_us);
}

}  // namespace

/// With an argument, only sequences up to that length.
int main(int count, char** arguments) {
  const Index longest = count > 1 ? std::atoll(arguments[1]) : 65536;
  cuda::Device device;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const Ceilings ceilings = measure_ceilings(device);
  std::printf("%s, %d multiprocessors: copy %.2f TB/s, %.2f T powers of two/s\n", properties.name, device.processors(),
              ceilings.bytes * 1e-9, ceilings.powers * 1e-9);
  measure<float>(device, "float", {8, 1024}, 1024, ceilings);
  measure<bfloat16>(device, "bf16", {8, 1024}, 1024, ceilings);
  for (const Index width : {2048, 8192}) {
    for (Index length = 1024; length <= longest; length *= length < 4096 ? 2 : 4) {
      if (8 * length * width > (Index{1} << 30)) continue;  // memory
      measure<float>(device, "float", {8, length}, width, ceilings);
      if (length == 2048) measure<bfloat16>(device, "bf16", {8, length}, width, ceilings);
    }
  }
  for (const Index length : {2048, 16384}) {
    if (length > longest) continue;
    measure<float>(device, "float", {1, length}, 2048, ceilings);
    measure<bfloat16>(device, "bf16", {1, length}, 2048, ceilings);
  }
  for (const Index width : {2048, 5120}) {
    for (const Index batch : {1, 16, 256}) {
      measure_step<float>(device, "float", batch, width);
      measure_step<bfloat16>(device, "bf16", batch, width);
    }
  }
}
