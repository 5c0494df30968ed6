/// A user-defined layer, outside the library: a learned moving average of each channel, followed by a linear map.
///
///   h_t = h_{t-1} + s ⊙ (x_t - h_{t-1}), s = sigmoid(rate);   y_t = W h_t
///
/// It meets the requirements of blocks/layer.hpp, so models support it like a built-in one: with running states,
/// chunks, training, files. It is composed of a block of the library's and an operation of its own.
#include <cstdio>

#include "moe_mamba/layer_check.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace mine {

using namespace moe_mamba;

/// The operation's forward pass: `state` (D per sequence) is read and updated; may be null. Sequences may have
/// different lengths, so their offsets are accumulated, not computed from shape.length, which is the largest length.
template <class C, class S>
void moving_average(cpu::Device& device, Shape shape, Input<C> x, const S* rate, StateView<C> state, MatrixView<C> h) {
  device.parallel(h.columns, [&](Index channel, int) {
    const C s = sigmoid(C(rate[channel]));
    for (Index sequence = 0, row = 0; sequence < shape.batch; ++sequence) {
      C last = state ? state.sequence(sequence)[channel] : C(0);
      for (const Index end = row + shape.length_of(sequence); row < end; ++row) {
        h(row, channel) = last += s * (x(row, channel) - last);
      }
      if (state) state.sequence(sequence)[channel] = last;
    }
  });
}

/// Backward: dx is overwritten, drate is accumulated; dstate is the gradient with respect to the final states on entry,
/// with respect to the initial states on return.
template <class C, class S>
void moving_average_backward(cpu::Device& device, Shape shape, Input<C> x, const S* rate, Input<C> initial, Input<C> h,
                             Input<C> dh, MatrixView<C> dx, C* drate, StateView<C> dstate) {
  device.parallel(dx.columns, [&](Index channel, int) {  // over channels: each has its own rate to accumulate into
    const C s = sigmoid(C(rate[channel]));
    for (Index sequence = 0, first = 0; sequence < shape.batch; first += shape.length_of(sequence++)) {
      C gradient = dstate ? dstate.sequence(sequence)[channel] : C(0);
      for (Index row = first + shape.length_of(sequence); row-- > first;) {
        const C before = row == first ? initial(sequence, channel) : h(row - 1, channel);
        gradient += dh(row, channel);
        dx(row, channel) = s * gradient;
        drate[channel] += gradient * (x(row, channel) - before) * s * (C(1) - s);
        gradient *= C(1) - s;
      }
      if (dstate) dstate.sequence(sequence)[channel] = gradient;
    }
  });
}

/// The layer, of width D.
template <int D>
struct MovingAverageLayer : LayerDefaults {
  using Out = Projection<D, D>;

  template <class Bind>
  struct Weights {
    constexpr explicit Weights(Bind& bind)
        : rate(bind.vector("rate", D, ParameterKind::decay_free, Initializer::dt_bias())),
          out(bind.template block<Out>("out.", Initializer::uniform(D).scaled_per_branch())) {}
    typename Bind::Vector rate;
    typename Out::template Weights<Bind> out;
  };
  static constexpr Index active_parameters = parameters_of<MovingAverageLayer>;
  static constexpr double flops_per_token = Out::flops_per_token + 3.0 * D;
  static constexpr Index state_size = D;
  static constexpr bool takes_packed = true;

  /// Saved for the backward pass.
  template <class C>
  struct Saved {
    template <class Device>
    constexpr Saved(Arena& arena, Device&, Shape shape)
        : initial(arena.rows<C>(shape.batch, D)), h(arena.rows<C>(shape.tokens(), D)) {}
    MatrixView<C> initial;  // (B, D)
    MatrixView<C> h;        // (T, D)
  };

  template <class C>
  using BackwardScratch = RowBuffer<C, D>;

  template <class Device, class S, class C>
  static void forward(Forward<Device, S, C> run, const auto& w, const Saved<C>& saved, MatrixView<const C> x,
                      MatrixView<C> y) {
    fill(run.device, C(0), saved.initial);
    if (run.state) copy(run.device, {run.state.data, run.shape.batch, D, run.state.stride}, saved.initial);
    moving_average(run.device, run.shape, x, w.rate, run.state, saved.h);
    Out::forward(run, w.out, saved.h, y);
  }

  template <class Device, class S, class C>
  static void backward(Backward<Device, S, C> run, const auto& w, const auto& g, const Saved<C>& saved,
                       MatrixView<const C> x, MatrixView<const C> dy, MatrixView<C> dx) {
    const BackwardScratch<C> dh(run.scratch, run.device, run.shape);
    Out::backward(run, w.out, g.out, saved.h, dy, dh.rows);
    moving_average_backward(run.device, run.shape, x, w.rate, saved.initial, saved.h, dh.rows, dx, g.rate, run.dstate);
  }
};

/// The option for definitions.
struct MovingAverage {
  template <int Width>
  using Layer = MovingAverageLayer<Width>;
};

}  // namespace mine

int main() {
  using namespace moe_mamba;
  Cpu device;
  const LayerCheck check = check_layer<mine::MovingAverage, 8>(device);
  std::printf("%s\n", check.text().c_str());

  using Net = SequenceModel<Inputs<1>, Outputs<1>, Width<16>, Repeat<2, mine::MovingAverage, Mlp<Hidden<32>>>>;
  std::printf("%td parameters, %td of running state\n", cost<Net>.parameters, cost<Net>.state_bytes);

  // The task: map a noisy signal to the square of its average over about twenty steps.
  constexpr Shape shape{16, 128};
  std::vector<float> inputs(shape.tokens()), targets(shape.tokens());
  Random random(Seed{1});
  const auto draw = [&] {
    for (Index row = 0; row < shape.tokens(); ++row) {
      const auto at = static_cast<std::size_t>(row);
      static float average = 0;
      if (row % shape.length == 0) average = 0;
      inputs[at] = static_cast<float>(1 + random.normal());
      average += 0.05f * (inputs[at] - average);
      targets[at] = average * average;
    }
    return SeriesBatch<float>{inputs, targets, shape};
  };

  Model<Net> model(Seed{1});
  Trainer trainer(model, AdamW{.learning_rate = 5e-3}, Cosine{.warmup = 20, .steps = 400});
  const double before = trainer.evaluate(draw()).prediction;
  for (int step = 0; step < 400; ++step) trainer.step(draw());
  const double after = trainer.evaluate(draw()).prediction;
  std::printf("mean squared error %.4f before training, %.4f after\n", before, after);
  return check.passed() && after < 0.05 * before ? 0 : 1;
}
