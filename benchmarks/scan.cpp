#include <cmath>

#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/cpu/selective_scan.hpp"
#include "moe_mamba/cpu/selective_scan_backward.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

constexpr int states = 16;

/// A scan of one sequence at the sizes of mamba-130m, and the same computation as straightforward scalar loops.
class Scan {
 public:
  explicit Scan(Index length) : length_(length) {
    for (Index i = 0; i < channels * states; ++i) a_log_.data()[i] = std::log(static_cast<float>(i % states + 1));
  }

  void reserve(cpu::Device& device) {
    scratch_ = Buffer<std::byte>(static_cast<Index>(selective_scan_scratch<float>(device, shape(), channels, states)));
  }

  double updates() const { return static_cast<double>(length_ * channels * states); }

  void forward(cpu::Device& device) {
    selective_scan(device, SelectiveScan<float, float, states>{.shape = shape(),
                                                               .u = rows(u_),
                                                               .delta = rows(delta_),
                                                               .b = rows(b_),
                                                               .c = rows(c_),
                                                               .z = rows(z_),
                                                               .delta_bias = bias_.data(),
                                                               .a_log = a_log_.data(),
                                                               .d = d_.data(),
                                                               .state = {},
                                                               .checkpoints = checkpoints_.data(),
                                                               .y = rows(y_),
                                                               .scratch = Arena(scratch_.data())});
  }

  void backward(cpu::Device& device) {
    selective_scan_backward(device, SelectiveScanBackward<float, float, states>{.shape = shape(),
                                                                                .u = rows(u_),
                                                                                .delta = rows(delta_),
                                                                                .b = rows(b_),
                                                                                .c = rows(c_),
                                                                                .z = rows(z_),
                                                                                .delta_bias = bias_.data(),
                                                                                .a_log = a_log_.data(),
                                                                                .d = d_.data(),
                                                                                .checkpoints = checkpoints_.data(),
                                                                                .dy = rows(dy_),
                                                                                .du = rows(du_),
                                                                                .ddelta = rows(ddelta_),
                                                                                .dz = rows(dz_),
                                                                                .db = rows(db_),
                                                                                .dc = rows(dc_),
                                                                                .ddelta_bias = dbias_.data(),
                                                                                .da_log = da_log_.data(),
                                                                                .dd = dd_.data(),
                                                                                .dstate = {},
                                                                                .scratch = Arena(scratch_.data())});
  }

  /// Channels from `first` on; saves the states of every step for scalar_backward().
  void scalar_forward(Index first, Index last) {
    for (Index e = first; e < last; ++e) {
      float rate[states];
      for (int n = 0; n < states; ++n) rate[n] = -std::exp(a_log_.data()[e * states + n]);
      float h[states] = {};
      for (Index t = 0; t < length_; ++t) {
        const Index at = t * channels + e;
        const float step = softplus(delta_.data()[at] + bias_.data()[e]), drive = step * u_.data()[at];
        float sum = d_.data()[e] * u_.data()[at];
        for (int n = 0; n < states; ++n) {
          h[n] = std::exp(step * rate[n]) * h[n] + drive * b_.data()[t * states + n];
          sum += h[n] * c_.data()[t * states + n];
          all_states_.data()[at * states + n] = h[n];
        }
        const float z = z_.data()[at];
        y_.data()[at] = sum * z / (1 + std::exp(-z));
      }
    }
  }

  /// Single-threaded, because all channels accumulate into the gradients with respect to b and c.
  void scalar_backward(Index first, Index last) {
    for (Index e = first; e < last; ++e) {
      float rate[states];
      for (int n = 0; n < states; ++n) rate[n] = -std::exp(a_log_.data()[e * states + n]);
      float dh[states] = {};
      for (Index t = length_; t-- > 0;) {
        const Index at = t * channels + e;
        const float raw = delta_.data()[at] + bias_.data()[e], step = softplus(raw), u = u_.data()[at];
        const float z = z_.data()[at], gate = 1 / (1 + std::exp(-z)), dy = dy_.data()[at] * z * gate;
        float y = d_.data()[e] * u, du = d_.data()[e] * dy, dstep = 0;
        for (int n = 0; n < states; ++n) {
          const float decay = std::exp(step * rate[n]);
          const float h = all_states_.data()[at * states + n];
          const float before = t > 0 ? all_states_.data()[(at - channels) * states + n] : 0;
          const float b = b_.data()[t * states + n], c = c_.data()[t * states + n];
          y += h * c;
          dh[n] += dy * c;
          dstep += dh[n] * (before * decay * rate[n] + u * b);
          du += dh[n] * step * b;
          da_log_.data()[e * states + n] += dh[n] * before * decay * step * rate[n];
          db_.data()[t * states + n] += dh[n] * step * u;
          dc_.data()[t * states + n] += dy * h;
          dh[n] *= decay;
        }
        du_.data()[at] = du;
        ddelta_.data()[at] = dstep / (1 + std::exp(-raw));
        dz_.data()[at] = dy_.data()[at] * y * gate * (1 + z * (1 - gate));
        dd_.data()[e] += dy * u;
        dbias_.data()[e] += ddelta_.data()[at];
      }
    }
  }

  static constexpr Index channels = 1536;

 private:
  static float softplus(float x) { return x > 20 ? x : std::log1p(std::exp(x)); }

  Shape shape() const { return {1, length_}; }
  MatrixView<float> rows(const Buffer<float>& buffer) const {
    return matrix(buffer.data(), length_, buffer.size() / length_);
  }

  Index length_;
  Buffer<float> u_{length_ * channels, -1, 1, 1}, delta_{length_ * channels, -1, 1, 2},
      z_{length_ * channels, -2, 2, 3}, b_{length_ * states, -1, 1, 4}, c_{length_ * states, -1, 1, 5},
      dy_{length_ * channels, -1, 1, 6};
  Buffer<float> bias_{channels, -4, -2, 7}, a_log_{channels * states}, d_{channels, 1, 1};
  Buffer<float> y_{length_ * channels}, checkpoints_{scan_checkpoints(length_) * channels * states};
  Buffer<float> du_{length_ * channels}, ddelta_{length_ * channels}, dz_{length_ * channels};
  Buffer<float> db_{length_ * states}, dc_{length_ * states};
  Buffer<float> dbias_{channels}, da_log_{channels * states}, dd_{channels};
  Buffer<float> all_states_{length_ * channels * states};
  Buffer<std::byte> scratch_{0};
};

}  // namespace

void scan(Report& report) {
  report.begin_group("scan", "selective scan of 1536 channels with 16 states, ns per state update");
  const Index length = report.settings().quick ? 128 : 512;
  Scan scan(length);
  const std::string steps = ", " + std::to_string(length) + " steps";
  for (const int threads : report.settings().threads) {
    cpu::Device device(Threads{threads});
    scan.reserve(device);
    const auto add = [&](const std::string& name, const std::vector<Samples>& samples, double aim) {
      Row row{name + steps, threads, samples[0], 1e9 * samples[0].median() / scan.updates(), "ns", {}, aim};
      if (samples.size() > 1) {
        row.comparisons = {{"the scalar loop's speed", time_ratio(samples[1], samples[0]), false, 0}};
      }
      report.add(row);
    };
    const auto forward = [&] { scan.forward(device); };
    const auto backward = [&] { scan.backward(device); };
    constexpr Index tasks = 16, channels_per_task = Scan::channels / tasks;
    const auto scalar_forward = [&] {
      device.parallel(tasks, [&](Index task, int) {
        scan.scalar_forward(task * channels_per_task, (task + 1) * channels_per_task);
      });
    };
    const auto scalar_backward = [&] { scan.scalar_backward(0, Scan::channels); };
    add("forward", interleave(report.settings(), {forward, scalar_forward}), threads == 1 ? 0.35 : 0);
    if (threads == 1) {
      add("backward", interleave(report.settings(), {backward, scalar_backward}), 0);
    } else {
      add("backward", interleave(report.settings(), {backward}), 0);
    }
  }
}

}  // namespace benchmarks
