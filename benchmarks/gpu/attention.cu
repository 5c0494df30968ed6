// Attention on a device: a batch of whole sequences forward and backward, as the rate of the required products'
// operations, and a decoding step over a full cache, as the rate of its bytes relative to a copy.
//
//   nvcc -std=c++20 -arch=native -O2 -I include -I tests -I benchmarks attention.cu -o attention -lcublas && ./attention
#include <cstdio>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda/attention/backward.cuh"
#include "moe_mamba/cuda/attention/forward.cuh"
#include "moe_mamba/cuda/elementwise.cuh"

using namespace moe_mamba;
using benchmarks::Filled;
using benchmarks::milliseconds;

namespace {

template <class C, int width>
class AttentionRun {
 public:
  AttentionRun(cuda::Device& device, Shape shape, AttentionHeads heads)
      : device_(device),
        shape_(shape),
        heads_(heads),
        query_numbers_(shape.tokens() * heads.queries * width),
        key_numbers_(shape.tokens() * heads.key_values * width),
        states_(shape.batch * AttentionCache<width>(heads).size()),
        saved_(shape.batch * AttentionCache<width>(heads).size()) {
    // Full caches.
    std::vector<float> digits(position_digits);
    write_position(heads.context, digits.data());
    for (Index sequence = 0; sequence < shape.batch; ++sequence) {
      cuda::check(cudaMemcpy(states_.data() + sequence * AttentionCache<width>(heads).size() +
                                 AttentionCache<width>(heads).position(),
                             digits.data(), sizeof(float) * position_digits, cudaMemcpyHostToDevice),
                  "cudaMemcpy");
    }
  }

  double forward(bool cached) {
    return milliseconds(device_, 5, [&] {
      causal_attention(device_,
                       CausalAttention<C, width>{
                           .shape = shape_,
                           .heads = heads_,
                           .q = rows(q_),
                           .k = rows(k_),
                           .v = rows(v_),
                           .state = cached ? StateView<float>{states_.data(), AttentionCache<width>(heads_).size()}
                                           : StateView<float>{},
                           .saved_state = cached ? nullptr : saved_.data(),
                           .y = rows(y_),
                           .log_sums = log_sums_.data(),
                           .scratch = Arena(scratch_.data())});
    });
  }
  double backward() {
    return milliseconds(device_, 5, [&] {
      causal_attention_backward(device_, CausalAttentionBackward<C, width>{.shape = shape_,
                                                                           .heads = heads_,
                                                                           .q = rows(q_),
                                                                           .k = rows(k_),
                                                                           .v = rows(v_),
                                                                           .saved_state = saved_.data(),
                                                                           .y = rows(y_),
                                                                           .log_sums = log_sums_.data(),
                                                                           .dy = rows(dy_),
                                                                           .dq = rows(dq_),
                                                                           .dk = rows(dk_),
                                                                           .dv = rows(dv_),
                                                                           .dstate = {},
                                                                           .scratch = Arena(scratch_.data())});
    });
  }
  /// Two products with each row that a step attends to, from an empty cache.
  double operations() const {
    return 4.0 * width * double(heads_.queries * shape_.batch) * double(shape_.length) * double(shape_.length + 1) / 2;
  }
  double cache_bytes() const { return double(shape_.batch * AttentionCache<width>(heads_).size()) * sizeof(float); }

 private:
  MatrixView<C> rows(const Filled<C>& numbers) const {
    const bool queries = &numbers == &q_ || &numbers == &y_ || &numbers == &dy_ || &numbers == &dq_;
    return matrix(numbers.data(), shape_.tokens(), (queries ? heads_.queries : heads_.key_values) * width);
  }

  cuda::Device& device_;
  Shape shape_;
  AttentionHeads heads_;
  Index query_numbers_, key_numbers_;
  Filled<float> states_, saved_;
  Filled<C> q_{query_numbers_}, y_{query_numbers_}, dy_{query_numbers_}, dq_{query_numbers_};
  Filled<C> k_{key_numbers_}, v_{key_numbers_}, dk_{key_numbers_}, dv_{key_numbers_};
  Filled<float> log_sums_{shape_.tokens() * heads_.queries};
  cuda::Memory scratch_{causal_attention_scratch<C, width>(device_, shape_, heads_)};
};

template <class C, int width>
void measure(cuda::Device& device, const char* type, Shape shape, AttentionHeads heads) {
  AttentionRun<C, width> run(device, shape, heads);
  const double forward = run.forward(false), backward = run.backward();
  std::printf(
      "%-8s %2td x %5td, %2td of %2td heads of %3d: forward %8.3f ms %6.1f TFLOP/s | backward %8.3f ms %6.1f TFLOP/s\n",
      type, shape.batch, shape.length, heads.queries, heads.key_values, width, forward,
      run.operations() / forward * 1e-9, backward, 2.5 * run.operations() / backward * 1e-9);
}

template <class C, int width>
void measure_step(cuda::Device& device, double copy_rate, const char* type, Index batch, AttentionHeads heads) {
  AttentionRun<C, width> run(device, {batch, 1}, heads);
  const double time = run.forward(true);
  std::printf(
      "%-8s a step of %2td, %2td of %2td heads of %3d over %5td rows: %8.2f us, cache at %5.0f GB/s, %3.0f %%\n", type,
      batch, heads.queries, heads.key_values, width, heads.context, 1000 * time, run.cache_bytes() / time * 1e-6,
      100 * run.cache_bytes() / time * 1e-6 / copy_rate);
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cuda::Device device;
  cudaDeviceProp properties;
  cuda::check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  constexpr Index copied = Index{1} << 28;
  double copy_rate = 0;  // GB/s
  {
    Filled<float> from(copied), to(copied);
    copy_rate =
        8.0 * double(copied) /
        milliseconds(
            device, 5,
            [&] { copy(device, matrix<const float>(from.data(), 1 << 16, 4096), matrix(to.data(), 1 << 16, 4096)); }) *
        1e-6;
  }
  std::printf("%s, copy %.0f GB/s\n", properties.name, copy_rate);
  for (const Index length : {1024, 4096}) {
    const Index batch = 16384 / length;
    measure<bfloat16, 64>(device, "bfloat16", {batch, length}, {16, 16, length});
    measure<bfloat16, 128>(device, "bfloat16", {batch, length}, {16, 4, length});
    measure<float, 64>(device, "float", {batch, length}, {16, 16, length});
  }
  for (const Index batch : {1, 16}) {
    measure_step<bfloat16, 64>(device, copy_rate, "bfloat16", batch, {16, 16, 4096});
    measure_step<bfloat16, 128>(device, copy_rate, "bfloat16", batch, {32, 8, 4096});
  }
}
