#pragma once

#include <map>
#include <string>
#include <vector>

#include "gpu/support.cuh"
#include "moe_mamba/cuda/selective_scan_backward.cuh"

/// A selective scan with random inputs, on the GPU, by the reference and in plain loops.
namespace test::gpu::scan {

using namespace moe_mamba;
using test::relative_error;

template <class C>
using Results = std::map<std::string, std::vector<C>>;

inline std::size_t count(Index n) { return static_cast<std::size_t>(n); }

/// A scan with random inputs; equal arguments give equal values for each C. Rows and states lie further apart than they
/// must.
template <class C, class S, int N>
struct Problem {
  Shape shape;
  Index channels, stride, state_stride;
  std::vector<C> u, delta, b, c, z, state, dy, dstate;
  std::vector<S> bias, a_log, d;

  Problem(Shape s, Index e, std::uint64_t seed) : shape(s), channels(e), stride(e + 3), state_stride(N * e + 5) {
    const Index t = s.tokens();
    u = test::uniform<C>(t * stride, seed + 1);
    delta = test::uniform<C>(t * stride, seed + 2, -4, 1);
    z = test::uniform<C>(t * stride, seed + 3, -3, 3);
    dy = test::uniform<C>(t * stride, seed + 4);
    b = test::uniform<C>(t * (N + 2), seed + 5);
    c = test::uniform<C>(t * (N + 2), seed + 6);
    state = test::uniform<C>(s.batch * state_stride, seed + 7);
    dstate = test::uniform<C>(s.batch * state_stride, seed + 8);
    bias = test::uniform<S>(e, seed + 9);
    a_log = test::uniform<S>(e * N, seed + 10, -1, 3);
    d = test::uniform<S>(e, seed + 11);
  }

  MatrixView<const C> wide(const C* values) const { return {values, shape.tokens(), channels, stride}; }
  MatrixView<const C> narrow(const C* values) const { return {values, shape.tokens(), N, N + 2}; }
  MatrixView<const C> wide(const std::vector<C>& values) const { return wide(values.data()); }
  MatrixView<const C> narrow(const std::vector<C>& values) const { return narrow(values.data()); }

  /// What the outputs hold before a call.
  Results<C> before() const {
    const Index t = shape.tokens(), e = channels;
    return {{"y", test::poison<C>(t * stride)},
            {"state", state},
            {"checkpoints", test::poison<C>(shape.batch * scan_checkpoints(shape.length) * N * e)},
            {"du", test::poison<C>(t * stride)},
            {"ddelta", test::poison<C>(t * stride)},
            {"dz", test::poison<C>(t * stride)},
            {"db", test::poison<C>(t * (N + 2))},
            {"dc", test::poison<C>(t * (N + 2))},
            {"dbias", test::uniform<C>(e, 1)},
            {"da_log", test::uniform<C>(e * N, 2)},
            {"dd", test::uniform<C>(e, 3)},
            {"dstate", dstate}};
  }

  /// Forward and backward with the memory that `input` and `output` give, and `scratch`.
  template <class Device, class Input, class Parameter, class Output>
  void run(Device& device, const Input& input, const Parameter& parameter, const Output& output, Arena scratch,
           bool with_state) const {
    const Index t = shape.tokens();
    const auto out = [&](const char* name, Index columns, Index row) {
      return MatrixView<C>{output(name), t, columns, row};
    };
    const auto states = [&](const char* name) {
      return with_state ? StateView<C>{output(name), state_stride} : StateView<C>{};
    };
    const auto u_rows = wide(input(u)), delta_rows = wide(input(delta)), z_rows = wide(input(z));
    const auto b_rows = narrow(input(b)), c_rows = narrow(input(c));
    selective_scan(device, SelectiveScan<C, S, N>{shape, u_rows, delta_rows, b_rows, c_rows, z_rows, parameter(bias),
                                                  parameter(a_log), parameter(d), states("state"),
                                                  output("checkpoints"), out("y", channels, stride), scratch});
    selective_scan_backward(device, SelectiveScanBackward<C, S, N>{shape,
                                                                   u_rows,
                                                                   delta_rows,
                                                                   b_rows,
                                                                   c_rows,
                                                                   z_rows,
                                                                   parameter(bias),
                                                                   parameter(a_log),
                                                                   parameter(d),
                                                                   output("checkpoints"),
                                                                   wide(input(dy)),
                                                                   out("du", channels, stride),
                                                                   out("ddelta", channels, stride),
                                                                   out("dz", channels, stride),
                                                                   out("db", N, N + 2),
                                                                   out("dc", N, N + 2),
                                                                   output("dbias"),
                                                                   output("da_log"),
                                                                   output("dd"),
                                                                   states("dstate"),
                                                                   scratch});
  }

  Results<C> on_reference(bool with_state) const {
    Results<C> results = before();
    reference::Device device;
    const auto data = [](const auto& values) { return values.data(); };
    run(
        device, data, data, [&](const char* name) { return results[name].data(); }, Arena(), with_state);
    return results;
  }

  /// On the GPU, launch by launch or captured as a graph.
  Results<C> on_gpu(cuda::Device& device, bool with_state, Checks& checks, bool as_graph = false) const {
    std::map<const void*, Buffer<C>> inputs;
    std::map<const void*, Buffer<S>> parameters;
    std::map<std::string, Buffer<C>> outputs;
    for (const auto* values : {&u, &delta, &b, &c, &z, &dy}) inputs.emplace(values, *values);
    for (const auto* values : {&bias, &a_log, &d}) parameters.emplace(values, *values);
    for (const auto& [name, values] : before()) outputs.emplace(name, values);
    const std::size_t bytes = selective_scan_scratch<C>(device, shape, channels, N);
    const auto scratch = Buffer<std::byte>(std::vector<std::byte>(bytes, std::byte{0xff}));
    const auto work = [&] {
      run(
          device, [&](const auto& values) { return inputs.at(&values).data(); },
          [&](const auto& values) { return parameters.at(&values).data(); },
          [&](const char* name) { return outputs.at(name).data(); }, Arena(scratch.data()), with_state);
    };
    if (as_graph) {
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
    Results<C> results;
    for (const auto& [name, buffer] : outputs) {
      results[name] = buffer.values();
      checks.check(buffer.guards_hold(), "guards of " + name);
    }
    checks.check(scratch.guards_hold(), "guards of the scratch");
    return results;
  }

  /// The scan in plain loops in C: what a float result may be off by is judged by what this is off by.
  Results<C> plain(bool with_state) const {
    const Index e = channels, length = shape.length;
    Results<C> results = before();
    for (const char* name : {"db", "dc"}) std::fill(results[name].begin(), results[name].end(), C(0));
    for (Index s = 0; s < shape.batch; ++s) {
      for (Index k = 0; k < e; ++k) {
        const auto at_state = [&](int n) { return count(s * state_stride + n * e + k); };
        std::vector<C> h, decay, sums;
        C a[N], carried[N];
        for (int n = 0; n < N; ++n) {
          a[n] = -std::exp(static_cast<C>(a_log[count(k * N + n)]));
          h.push_back(with_state ? results["state"][at_state(n)] : C(0));
          carried[n] = with_state ? results["dstate"][at_state(n)] : C(0);
        }
        const C d_own = static_cast<C>(d[count(k)]), bias_own = static_cast<C>(bias[count(k)]);
        for (Index t = 0; t < length; ++t) {
          const Index row = s * length + t;
          const C step = softplus(wide(delta)(row, k) + bias_own), x = wide(u)(row, k);
          C sum = d_own * x;
          for (int n = 0; n < N; ++n) {
            if (t % scan_checkpoint_interval == 0) {
              const Index piece = s * scan_checkpoints(length) + t / scan_checkpoint_interval;
              results["checkpoints"][count((piece * N + n) * e + k)] = h[count(t * N + n)];
            }
            decay.push_back(std::exp(step * a[n]));
            h.push_back(decay.back() * h[count(t * N + n)] + step * x * narrow(b)(row, n));
            sum += narrow(c)(row, n) * h.back();
          }
          sums.push_back(sum);
          results["y"][count(row * stride + k)] = sum * silu(wide(z)(row, k));
        }
        for (Index t = length - 1; t >= 0; --t) {
          const Index row = s * length + t;
          const C raw = wide(delta)(row, k) + bias_own, step = softplus(raw), x = wide(u)(row, k);
          const C gradient = wide(dy)(row, k), dp = gradient * silu(wide(z)(row, k));
          C input = 0, dstep = 0;
          for (int n = 0; n < N; ++n) {
            const C b_own = narrow(b)(row, n), dh = narrow(c)(row, n) * dp + carried[n];
            results["dc"][count(row * (N + 2) + n)] += dp * h[count((t + 1) * N + n)];
            results["db"][count(row * (N + 2) + n)] += dh * step * x;
            input += dh * b_own;
            carried[n] = dh * decay[count(t * N + n)];
            dstep += carried[n] * h[count(t * N + n)] * a[n];
            results["da_log"][count(k * N + n)] += carried[n] * h[count(t * N + n)] * step * a[n];
          }
          dstep = (dstep + input * x) * sigmoid(raw);
          results["du"][count(row * stride + k)] = d_own * dp + step * input;
          results["ddelta"][count(row * stride + k)] = dstep;
          results["dz"][count(row * stride + k)] = gradient * sums[count(t)] * silu_derivative(wide(z)(row, k));
          results["dbias"][count(k)] += dstep;
          results["dd"][count(k)] += dp * x;
        }
        for (int n = 0; n < N && with_state; ++n) {
          results["state"][at_state(n)] = h[count(length * N + n)];
          results["dstate"][at_state(n)] = carried[n];
        }
      }
    }
    return results;
  }

  /// The elements of an output that a call has to write, one after the other.
  template <class T>
  std::vector<T> written(const std::string& name, const std::vector<T>& values) const {
    const bool rows = name == "y" || name == "du" || name == "ddelta" || name == "dz",
               few = name == "db" || name == "dc";
    if (!rows && !few) return values;
    std::vector<T> result;
    for (Index row = 0; row < shape.tokens(); ++row) {
      const auto first = values.begin() + row * (rows ? stride : N + 2);
      result.insert(result.end(), first, first + (rows ? channels : N));
    }
    return result;
  }

  /// Whether what lies between rows is as it was.
  bool gaps_hold(const std::vector<C>& values, Index width, Index row_stride) const {
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
    for (auto* rows : {&p.b, &p.c}) cut(*rows, N + 2);
    return p;
  }
};

/// Double: 1e-12 is some thousand rounding errors, of which a sum has that many. Float: twice what plain loops in float are
/// off by and, as those may be lucky, 8 units in the last place of the largest element; for the gradients of parameters,
/// sums over all tokens, some that grow with the square root of their number.
template <class C>
double bound(const std::string& name, double plain_error, Index tokens) {
  if (sizeof(C) == 8) return 1e-12;
  const bool parameter = name == "dbias" || name == "da_log" || name == "dd";
  return 2 * plain_error + (8 + (parameter ? 2 * std::sqrt(static_cast<double>(tokens)) : 0.0)) * 1.2e-7;
}

}  // namespace test::gpu::scan
