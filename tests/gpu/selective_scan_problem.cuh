#pragma once

#include <map>
#include <string>
#include <vector>

#include "gpu/rounded.cuh"
#include "moe_mamba/cuda/selective_scan/selective_scan.cuh"
#include "moe_mamba/reference.hpp"

/// A selective scan with random inputs, on the GPU, by the reference and in plain loops.
namespace test::gpu::scan {

using namespace moe_mamba;
inline std::size_t count(Index n) { return static_cast<std::size_t>(n); }

/// How a problem is run: by separate launches, captured as a graph, or with packed sequences one by one.
enum class Run { at_once, as_graph, one_by_one };

/// A scan with random inputs. Rows and states are padded, for some widths such that vector loads are possible.
template <class C, class S, int N>
struct Problem {
  using T = compute_t<C>;
  Shape shape;
  Index channels, stride, narrow_stride, state_stride;
  std::vector<C> u, delta, b, c, z, dy;
  std::vector<T> state, dstate;
  std::vector<S> bias, a_log, d;

  Problem(Shape s, Index e, std::uint64_t seed)
      : shape(s),
        channels(e),
        stride(e + (e % 4 == 0 ? 4 : 3)),
        narrow_stride(N + (e % 2 == 0 ? 8 : 2)),
        state_stride(N * e + 5) {
    const Index t = s.tokens();
    u = test::uniform<C>(t * stride, seed + 1);
    delta = test::uniform<C>(t * stride, seed + 2, -4, 1);
    z = test::uniform<C>(t * stride, seed + 3, -3, 3);
    dy = test::uniform<C>(t * stride, seed + 4);
    b = test::uniform<C>(t * narrow_stride, seed + 5);
    c = test::uniform<C>(t * narrow_stride, seed + 6);
    state = test::uniform<T>(s.batch * state_stride, seed + 7);
    dstate = test::uniform<T>(s.batch * state_stride, seed + 8);
    bias = test::uniform<S>(e, seed + 9);
    a_log = test::uniform<S>(e * N, seed + 10, -1, 3);
    d = test::uniform<S>(e, seed + 11);
  }

  /// The same values in another scalar type.
  template <class Other>
  explicit Problem(const Problem<Other, S, N>& other)
      : shape(other.shape),
        channels(other.channels),
        stride(other.stride),
        narrow_stride(other.narrow_stride),
        state_stride(other.state_stride),
        u(test::converted<C>(other.u)),
        delta(test::converted<C>(other.delta)),
        b(test::converted<C>(other.b)),
        c(test::converted<C>(other.c)),
        z(test::converted<C>(other.z)),
        dy(test::converted<C>(other.dy)),
        state(test::converted<T>(other.state)),
        dstate(test::converted<T>(other.dstate)),
        bias(other.bias),
        a_log(other.a_log),
        d(other.d) {}

  MatrixView<const C> wide(const C* values) const { return {values, shape.tokens(), channels, stride}; }
  MatrixView<const C> narrow(const C* values) const { return {values, shape.tokens(), N, narrow_stride}; }
  MatrixView<const C> wide(const std::vector<C>& values) const { return wide(values.data()); }
  MatrixView<const C> narrow(const std::vector<C>& values) const { return narrow(values.data()); }

  /// The contents of the outputs before a call.
  Results<C> before() const {
    const Index t = shape.tokens(), e = channels;
    return {{{"y", test::poison<C>(t * stride)},
             {"du", test::poison<C>(t * stride)},
             {"ddelta", test::poison<C>(t * stride)},
             {"dz", test::poison<C>(t * stride)},
             {"db", test::poison<C>(t * narrow_stride)},
             {"dc", test::poison<C>(t * narrow_stride)}},
            {{"state", state},
             {"checkpoints", test::poison<T>(scan_checkpoints(shape) * N * e)},
             {"dbias", test::uniform<T>(e, 1)},
             {"da_log", test::uniform<T>(e * N, 2)},
             {"dd", test::uniform<T>(e, 3)},
             {"dstate", dstate}}};
  }

  /// Forward and backward with the memory that `input`, `parameter`, `output` for activations and `sum` for other
  /// results give, and `scratch`.
  template <class Device, class Input, class Parameter, class Output, class Sum>
  void run(Device& device, const Input& input, const Parameter& parameter, const Output& output, const Sum& sum,
           Arena scratch, bool with_state, bool one_by_one) const {
    const Index t = shape.tokens();
    const auto out = [&](const char* name, Index columns, Index row) {
      return MatrixView<C>{output(name), t, columns, row};
    };
    const auto states = [&](const char* name) {
      return with_state ? StateView<T>{sum(name), state_stride} : StateView<T>{};
    };
    const auto u_rows = wide(input(u)), delta_rows = wide(input(delta)), z_rows = wide(input(z));
    const auto b_rows = narrow(input(b)), c_rows = narrow(input(c));
    const SelectiveScan<C, S, N> forward{shape,        u_rows,          delta_rows,         b_rows,
                                         c_rows,       z_rows,          parameter(bias),    parameter(a_log),
                                         parameter(d), states("state"), sum("checkpoints"), out("y", channels, stride),
                                         scratch};
    const SelectiveScanBackward<C, S, N> backward{shape,
                                                  u_rows,
                                                  delta_rows,
                                                  b_rows,
                                                  c_rows,
                                                  z_rows,
                                                  parameter(bias),
                                                  parameter(a_log),
                                                  parameter(d),
                                                  sum("checkpoints"),
                                                  wide(input(dy)),
                                                  out("du", channels, stride),
                                                  out("ddelta", channels, stride),
                                                  out("dz", channels, stride),
                                                  out("db", N, narrow_stride),
                                                  out("dc", N, narrow_stride),
                                                  sum("dbias"),
                                                  sum("da_log"),
                                                  sum("dd"),
                                                  states("dstate"),
                                                  scratch};
    if (one_by_one) {
      each_packed_scan(forward, [&](const auto& part) { selective_scan(device, part); });
      each_packed_scan(backward, [&](const auto& part) { selective_scan_backward(device, part); });
    } else {
      selective_scan(device, forward);
      selective_scan_backward(device, backward);
    }
  }

  Results<C> on_reference(bool with_state) const {
    Results<C> results = before();
    reference::Device device;
    const auto data = [](const auto& values) { return values.data(); };
    run(
        device, data, data, [&](const char* name) { return results.activations[name].data(); },
        [&](const char* name) { return results.sums[name].data(); }, Arena(), with_state, false);
    return results;
  }

  Results<C> on_gpu(cuda::Device& device, bool with_state, Checks& checks, Run how = Run::at_once) const {
    std::map<const void*, Buffer<C>> inputs;
    std::map<const void*, Buffer<S>> parameters;
    const ResultBuffers<C> outputs(before());
    for (const auto* values : {&u, &delta, &b, &c, &z, &dy}) inputs.emplace(values, *values);
    for (const auto* values : {&bias, &a_log, &d}) parameters.emplace(values, *values);
    const std::size_t bytes = selective_scan_scratch<C>(device, shape, channels, N);
    const auto scratch = Buffer<std::byte>(std::vector<std::byte>(bytes, std::byte{0xff}));
    const auto work = [&] {
      run(
          device, [&](const auto& values) { return inputs.at(&values).data(); },
          [&](const auto& values) { return parameters.at(&values).data(); },
          [&](const char* name) { return outputs.activation(name); },
          [&](const char* name) { return outputs.sum(name); }, Arena(scratch.data()), with_state,
          how == Run::one_by_one);
    };
    if (how == Run::as_graph) {
      cudaGraph_t graph;
      cudaGraphExec_t executable;
      cuda::check(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal), "begin");
      work();
      cuda::check(cudaStreamEndCapture(device.stream(), &graph), "end");
      cuda::check(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
      cuda::check(cudaGraphLaunch(executable, device.stream()), "launch");
      device.synchronize();
      cudaGraphExecDestroy(executable);
      cudaGraphDestroy(graph);
    } else {
      work();
      device.synchronize();
    }
    checks.check(scratch.guards_hold(), "guards of the scratch");
    return outputs.values(checks);
  }

  /// The scan in plain loops in the compute type: its error sets the tolerance.
  std::map<std::string, std::vector<T>> plain(bool with_state) const {
    const Index e = channels;
    std::map<std::string, std::vector<T>> results;
    before().each([&](const std::string& name, const auto& values) { results[name] = test::converted<T>(values); });
    for (const char* name : {"db", "dc"}) std::fill(results[name].begin(), results[name].end(), T(0));
    Index first_row = 0, first_checkpoint = 0;
    for (Index s = 0; s < shape.batch; ++s) {
      const Index length = shape.length_of(s);
      for (Index k = 0; k < e; ++k) {
        const auto at_state = [&](int n) { return count(s * state_stride + n * e + k); };
        std::vector<T> h, decay, sums;
        T a[N], carried[N];
        for (int n = 0; n < N; ++n) {
          a[n] = -std::exp(static_cast<T>(a_log[count(k * N + n)]));
          h.push_back(with_state ? results["state"][at_state(n)] : T(0));
          carried[n] = with_state ? results["dstate"][at_state(n)] : T(0);
        }
        const T d_own = static_cast<T>(d[count(k)]), bias_own = static_cast<T>(bias[count(k)]);
        for (Index t = 0; t < length; ++t) {
          const Index row = first_row + t;
          const T step = softplus(static_cast<T>(wide(delta)(row, k)) + bias_own), x = static_cast<T>(wide(u)(row, k));
          T sum = d_own * x;
          for (int n = 0; n < N; ++n) {
            if (t % scan_checkpoint_interval == 0) {
              const Index piece = first_checkpoint + t / scan_checkpoint_interval;
              results["checkpoints"][count((piece * N + n) * e + k)] = h[count(t * N + n)];
            }
            decay.push_back(std::exp(step * a[n]));
            h.push_back(decay.back() * h[count(t * N + n)] + step * x * static_cast<T>(narrow(b)(row, n)));
            sum += static_cast<T>(narrow(c)(row, n)) * h.back();
          }
          sums.push_back(sum);
          results["y"][count(row * stride + k)] = sum * silu(static_cast<T>(wide(z)(row, k)));
        }
        for (Index t = length - 1; t >= 0; --t) {
          const Index row = first_row + t;
          const T raw = static_cast<T>(wide(delta)(row, k)) + bias_own, step = softplus(raw),
                  x = static_cast<T>(wide(u)(row, k));
          const T gradient = static_cast<T>(wide(dy)(row, k)), dp = gradient * silu(static_cast<T>(wide(z)(row, k)));
          T input = 0, dstep = 0;
          for (int n = 0; n < N; ++n) {
            const T b_own = static_cast<T>(narrow(b)(row, n)), dh = static_cast<T>(narrow(c)(row, n)) * dp + carried[n];
            results["dc"][count(row * narrow_stride + n)] += dp * h[count((t + 1) * N + n)];
            results["db"][count(row * narrow_stride + n)] += dh * step * x;
            input += dh * b_own;
            carried[n] = dh * decay[count(t * N + n)];
            dstep += carried[n] * h[count(t * N + n)] * a[n];
            results["da_log"][count(k * N + n)] += carried[n] * h[count(t * N + n)] * step * a[n];
          }
          dstep = (dstep + input * x) * sigmoid(raw);
          results["du"][count(row * stride + k)] = d_own * dp + step * input;
          results["ddelta"][count(row * stride + k)] = dstep;
          results["dz"][count(row * stride + k)] =
              gradient * sums[count(t)] * silu_derivative(static_cast<T>(wide(z)(row, k)));
          results["dbias"][count(k)] += dstep;
          results["dd"][count(k)] += dp * x;
        }
        for (int n = 0; n < N && with_state; ++n) {
          results["state"][at_state(n)] = h[count(length * N + n)];
          results["dstate"][at_state(n)] = carried[n];
        }
      }
      first_row += length;
      first_checkpoint += scan_checkpoints(length);
    }
    return results;
  }

  /// The elements of an output that a call has to write, without padding.
  template <class V>
  std::vector<V> written(const std::string& name, const std::vector<V>& values) const {
    const bool rows = name == "y" || name == "du" || name == "ddelta" || name == "dz",
               few = name == "db" || name == "dc";
    if (!rows && !few) return values;
    std::vector<V> result;
    for (Index row = 0; row < shape.tokens(); ++row) {
      const auto first = values.begin() + row * (rows ? stride : narrow_stride);
      result.insert(result.end(), first, first + (rows ? channels : N));
    }
    return result;
  }

  /// Whether the padding between rows is unchanged.
  bool gaps_hold(const std::vector<double>& values, Index width, Index row_stride) const {
    for (Index row = 0; row < shape.tokens(); ++row) {
      for (Index i = width; i < row_stride; ++i) {
        if (!std::isnan(values[count(row * row_stride + i)])) return false;
      }
    }
    return true;
  }

  /// Steps first … first + length - 1 of sequence 0 alone.
  Problem part(Index first, Index length) const {
    Problem p = *this;
    p.shape = {1, length};
    const auto cut = [&](std::vector<C>& values, Index width) {
      const auto begin = values.begin() + first * width;
      values = std::vector<C>(begin, begin + length * width);
    };
    for (auto* rows : {&p.u, &p.delta, &p.z, &p.dy}) cut(*rows, stride);
    for (auto* rows : {&p.b, &p.c}) cut(*rows, narrow_stride);
    return p;
  }
};

/// Double: 1e-12 is some thousand rounding errors, as many as there are in a sum. Float: twice the error of plain loops
/// in float plus, as that may be small by chance, 8 units in the last place of the largest element; for the gradients
/// of parameters, which are sums over all tokens, a term that grows with the square root of their number. bfloat16: the
/// same before rounding.
template <class C>
double bound(const std::string& name, double plain_error, Index tokens) {
  if (sizeof(C) == 8) return 1e-12;
  const bool parameter = name == "dbias" || name == "da_log" || name == "dd";
  return 2 * plain_error + (8 + (parameter ? 2 * std::sqrt(static_cast<double>(tokens)) : 0.0)) * 1.2e-7;
}

}  // namespace test::gpu::scan
