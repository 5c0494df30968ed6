#include <string>

#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/cpu/attention_backward.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

constexpr int width = 64;

/// Attention over one sequence, 12 heads of width 64.
class AttentionRun {
 public:
  AttentionRun(Index length, Index key_values, Index context)
      : length_(length), heads_{queries, key_values, context}, state_(AttentionCache<width>(heads_).size(), -1, 1, 5) {
    // A full cache.
    write_position(context, state_.data() + AttentionCache<width>(heads_).position());
  }

  void reserve(const cpu::Device& device) {
    scratch_ = Buffer<std::byte>(static_cast<Index>(causal_attention_scratch<float, width>(device, shape(), heads_)));
  }

  /// Two products with each row that a step attends to, from an empty cache.
  double operations() const {
    return 4.0 * width * queries * static_cast<double>(length_) * static_cast<double>(length_ + 1) / 2;
  }
  std::span<const std::byte> cache() const { return state_.bytes(); }

  void forward(cpu::Device& device, bool with_state) {
    causal_attention(device,
                     CausalAttention<float, width>{
                         .shape = shape(),
                         .heads = heads_,
                         .q = rows(q_),
                         .k = rows(k_),
                         .v = rows(v_),
                         .state = with_state ? StateView<float>{state_.data(), state_.size()} : StateView<float>{},
                         .saved_state = with_state ? nullptr : saved_.data(),
                         .y = rows(y_),
                         .log_sums = log_sums_.data(),
                         .scratch = Arena(scratch_.data())});
  }

  void backward(cpu::Device& device) {
    causal_attention_backward(device, CausalAttentionBackward<float, width>{.shape = shape(),
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
  }

 private:
  static constexpr Index queries = 12;
  Shape shape() const { return {1, length_}; }
  MatrixView<float> rows(const Buffer<float>& buffer) const {
    return matrix(buffer.data(), length_, buffer.size() / length_);
  }

  Index length_;
  AttentionHeads heads_;
  Buffer<float> state_, saved_{state_.size()};
  Buffer<float> q_{length_ * queries * width, -1, 1, 1}, k_{length_ * heads_.key_values * width, -1, 1, 2},
      v_{length_ * heads_.key_values * width, -1, 1, 3}, dy_{length_ * queries * width, -1, 1, 4};
  Buffer<float> y_{q_.size()}, log_sums_{length_ * queries}, dq_{q_.size()}, dk_{k_.size()}, dv_{k_.size()};
  Buffer<std::byte> scratch_{0};
};

}  // namespace

void attention(Report& report) {
  report.begin_group("attention", "causal attention, 12 heads of width 64, GFLOP/s; decoding steps, GB/s of the cache");
  const auto& settings = report.settings();
  for (const Index length : {Index{512}, Index{2048}}) {
    if (settings.quick && length > 512) continue;
    for (const Index key_values : {12, 4}) {
      AttentionRun run(length, key_values, length);
      const std::string what =
          ", " + std::to_string(length) + " steps, " + std::to_string(key_values) + " key/value heads";
      for (const int threads : settings.threads) {
        cpu::Device device(Threads{threads});
        run.reserve(device);
        const auto peak = [&] { multiply_add(device); };
        const auto add = [&](const std::string& name, double operations, const std::vector<Samples>& samples) {
          report.add({name + what,
                      threads,
                      samples[0],
                      1e-9 * operations / samples[0].median(),
                      "GFLOP/s",
                      {of_peak(device, operations, samples[0], samples[1])}});
        };
        add("forward", run.operations(), interleave(settings, {[&] { run.forward(device, false); }, peak}));
        add("backward", 2 * run.operations(), interleave(settings, {[&] { run.backward(device); }, peak}));
      }
    }
  }
  for (const Index context : {Index{512}, Index{2048}, Index{16384}}) {
    if (settings.quick && context > 512) continue;
    for (const Index key_values : {12, 4}) {
      AttentionRun run(1, key_values, context);
      for (const int threads : settings.threads) {
        cpu::Device device(Threads{threads});
        run.reserve(device);
        const auto samples =
            interleave(settings, {[&] { run.forward(device, true); }, [&] { plain_read(device, run.cache()); }});
        report.add(
            {"step, " + std::to_string(context) + " positions, " + std::to_string(key_values) + " key/value heads",
             threads,
             samples[0],
             1e-9 * static_cast<double>(run.cache().size()) / samples[0].median(),
             "GB/s",
             {of_read(samples[0], samples[1])}});
      }
    }
  }
}

}  // namespace benchmarks
