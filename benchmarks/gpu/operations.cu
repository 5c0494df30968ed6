// The operations that read their operands once: the bytes that must be moved per unit of time, relative to a copy.
//
//   nvcc -std=c++20 -arch=native -O2 -I include -I tests -I benchmarks operations.cu -o operations -lcublas
#include <cstdio>

#include "gpu/measure.cuh"
#include "moe_mamba/cuda/activation.cuh"
#include "moe_mamba/cuda/cross_entropy.cuh"
#include "moe_mamba/cuda/dispatch.cuh"
#include "moe_mamba/cuda/elementwise.cuh"
#include "moe_mamba/cuda/embedding.cuh"
#include "moe_mamba/cuda/linear/linear.cuh"
#include "moe_mamba/cuda/norm/layer_norm.cuh"
#include "moe_mamba/cuda/norm/rms_norm.cuh"
#include "moe_mamba/cuda/optimizer.cuh"
#include "moe_mamba/cuda/router.cuh"

using namespace moe_mamba;
using benchmarks::Filled;

namespace {

template <class Call>
void line(cuda::Device& device, const char* name, double bytes, const Call& call) {
  const double time = benchmarks::milliseconds(device, 7, call);
  std::printf("%-44s %8.3f ms %7.0f GB/s\n", name, time, bytes / time * 1e-6);
}

void measure_rows(cuda::Device& device) {
  constexpr Index tokens = 65536, width = 1024;
  const double pass = double(tokens) * double(width) * sizeof(float);
  Filled<float> a(tokens * width), b(tokens * width), c(tokens * width * 2), gain(width), scale(tokens);
  const auto x = matrix(a.data(), tokens, width), y = matrix(b.data(), tokens, width);
  const auto wide = matrix(c.data(), tokens, 2 * width);
  line(device, "copy", 2 * pass, [&] { copy(device, x, y); });
  line(device, "add", 3 * pass, [&] { add(device, x, y); });
  line(device, "silu", 2 * pass, [&] { activate(device, Silu{}, x, y); });
  line(device, "swiglu", 3 * pass, [&] { activate(device, SwiGlu{}, wide, y); });
  line(device, "swiglu backward", 5 * pass, [&] { activate_backward(device, SwiGlu{}, wide, y, wide); });
  line(device, "rms norm", 2 * pass, [&] { rms_norm(device, x, gain.data(), 1e-5, y, scale.data()); });
  line(device, "rms norm backward", 4 * pass, [&] {
    rms_norm_backward(device, x, gain.data(), static_cast<const float*>(scale.data()), y, wide.column_block(0, width),
                      gain.data());
  });
  line(device, "bias backward", pass, [&] { bias_backward(device, x, gain.data()); });
}

void measure_routing(cuda::Device& device) {
  constexpr Index tokens = 65536, width = 1024;
  constexpr int experts = 128, top_k = 2;
  constexpr Index assignments = tokens * top_k;
  const double pass = double(tokens) * double(width) * sizeof(float);
  Filled<float> logits(tokens * experts), probabilities(tokens * experts), gates(assignments), scalars(tokens);
  Filled<Index> chosen(assignments), slots(assignments), source(assignments), offsets(experts + 1);
  Filled<double> sums(2 * experts + 4);
  Filled<float> a(tokens * width), b(assignments * width), c(assignments * width);
  const auto x = matrix(a.data(), tokens, width), y = matrix(b.data(), assignments, width);
  line(device, "route, 2 of 128", 2.0 * double(tokens) * experts * sizeof(float), [&] {
    route(device, Router<float, experts, top_k>{.order = GateOrder::softmax_then_top_k,
                                                .logits = matrix(logits.data(), tokens, Index{experts}),
                                                .probabilities = matrix(probabilities.data(), tokens, Index{experts}),
                                                .log_sum_exp = scalars.data(),
                                                .experts = chosen.data(),
                                                .gates = gates.data(),
                                                .load = sums.data(),
                                                .probability = sums.data() + experts,
                                                .entropy = sums.data() + 2 * experts,
                                                .square_log_sum_exp = sums.data() + 2 * experts + 1,
                                                .counted = sums.data() + 2 * experts + 2});
  });
  line(device, "group tokens", double(assignments) * 3 * sizeof(Index), [&] {
    group_tokens(device, GroupTokens{tokens, top_k, experts, tokens, chosen.data(), slots.data(), source.data(),
                                     offsets.data(), sums.data()});
  });
  line(device, "gather", 4 * pass, [&] { gather_rows(device, {offsets.data(), experts}, x, source.data(), y); });
  line(device, "combine", 3 * pass,
       [&] { combine_rows(device, y, slots.data(), top_k, gates.data(), x, Into::assign); });
  line(device, "combine backward", 5 * pass, [&] {
    combine_rows_backward(device, y, slots.data(), top_k, gates.data(), x, matrix(c.data(), assignments, width),
                          gates.data());
  });
}

void measure_model(cuda::Device& device) {
  constexpr Index tokens = 65536, width = 1024;
  Filled<float> a(tokens * width), table(50280 * width), gradients(50280 * width);
  const double pass = double(tokens) * double(width) * sizeof(float);
  for (const Index vocabulary : {256, 50280}) {
    std::vector<Token> host;
    Random random(Seed{3});
    for (Index t = 0; t < tokens; ++t) {
      const auto token = random.below(static_cast<std::uint64_t>(vocabulary));
      host.push_back(t % 5 == 0 ? 0 : static_cast<Token>(token));
    }
    Filled<Token> ids(tokens);
    cuda::check(cudaMemcpy(ids.data(), host.data(), host.size() * sizeof(Token), cudaMemcpyHostToDevice), "cudaMemcpy");
    std::printf("vocabulary of %td, a fifth of the tokens the same\n", vocabulary);
    line(device, "  embed", 2 * pass, [&] {
      embed(device, ids.data(), matrix<const float>(table.data(), vocabulary, width), matrix(a.data(), tokens, width));
    });
    line(device, "  embed backward", pass, [&] {
      embed_backward(device, ids.data(), matrix(a.data(), tokens, width), matrix(gradients.data(), vocabulary, width));
    });
    constexpr Index rows = 8192;
    cuda::Memory scratch(head_cross_entropy_scratch<bfloat16>(device, rows, vocabulary, width));
    Filled<bfloat16> head(vocabulary * width), normed(rows * width), dx(rows * width);
    Filled<double> totals(2);
    const double time = benchmarks::milliseconds(device, 5, [&] {
      head_cross_entropy(device, HeadCrossEntropy<bfloat16, bfloat16>{
                                     matrix<const bfloat16>(normed.data(), rows, width),
                                     matrix<const bfloat16>(head.data(), vocabulary, width), ids.data(),
                                     matrix(dx.data(), rows, width), matrix(gradients.data(), vocabulary, width),
                                     totals.data(), Arena(scratch.data())});
    });
    std::printf("%-44s %8.3f ms %7.1f TFLOP/s\n", "  head, loss and gradients, 8192 rows, bfloat16", time,
                6.0 * double(rows) * double(vocabulary) * double(width) / time * 1e-9);
  }

  constexpr Index count = 100'000'000;
  Filled<float> gradient(count), m(count), v(count);
  Filled<bfloat16> stored(count);
  Filled<std::int16_t> remainder(count);
  Filled<double> squares(1);
  // A hundred thousand boundaries of decay, far more than a model has.
  std::vector<Index> boundaries;
  for (Index boundary = 0; boundary < count; boundary += 1000) boundaries.push_back(boundary);
  cuda::Memory boundary_memory(boundaries.size() * sizeof(Index));
  cuda::check(cudaMemcpy(boundary_memory.data(), boundaries.data(), boundary_memory.size(), cudaMemcpyHostToDevice),
              "cudaMemcpy");
  line(device, "sum of squares", 4.0 * count, [&] { sum_of_squares(device, gradient.data(), count, squares.data()); });
  line(device, "adamw, bfloat16 with remainders", 28.0 * count, [&] {
    adamw(device, AdamWUpdate<float, bfloat16>{count, stored.data(), remainder.data(), gradient.data(), m.data(),
                                               v.data(), 1.0, 1e-9, 0.9, 0.99, 1e-8, 0.1,
                                               reinterpret_cast<const Index*>(boundary_memory.data()),
                                               static_cast<Index>(boundaries.size()), 0.5, 0.5, squares.data(), 1.0});
  });
}

template <class S>
void measure_generation(cuda::Device& device, const char* name) {
  constexpr Index in = 4096, out = 16384, experts = 64;
  Filled<S> weights(experts * in * in);
  Filled<S> x(16 * in), y(16 * out);
  const double bytes = double(in) * double(out) * sizeof(S);
  for (const Index rows : {1, 4, 8, 64}) {
    Filled<S> more_x(rows * in), more_y(rows * out);
    line(device, (std::string("linear ") + name + ", rows " + std::to_string(rows)).c_str(), bytes, [&] {
      linear(device, matrix(more_x.data(), rows, in), matrix<const S>(weights.data(), out, in),
             matrix(more_y.data(), rows, out));
    });
  }
  const std::vector<Index> host = [] {
    std::vector<Index> offsets(experts + 1, 2);
    for (Index e = 0; e <= experts; ++e) offsets[static_cast<std::size_t>(e)] = e < 20 ? 0 : e < 40 ? 1 : 2;
    return offsets;
  }();
  Filled<Index> offsets(experts + 1);
  cuda::check(cudaMemcpy(offsets.data(), host.data(), host.size() * sizeof(Index), cudaMemcpyHostToDevice),
              "cudaMemcpy");
  line(device, (std::string("grouped linear ") + name + ", 2 rows of 2 experts").c_str(), 2.0 * in * in * sizeof(S),
       [&] {
         grouped_linear(device, {offsets.data(), experts}, matrix(x.data(), Index{2}, in),
                        MatrixStack<const S>{weights.data(), in, in}, matrix(y.data(), Index{2}, in));
       });
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  cuda::Device device;
  measure_rows(device);
  measure_routing(device);
  measure_model(device);
  measure_generation<float>(device, "float");
  measure_generation<bfloat16>(device, "bfloat16");
}
