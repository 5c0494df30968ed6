#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "moe_mamba/cpu/selective_scan.hpp"
#include "moe_mamba/cpu/selective_scan_backward.hpp"
#include "support/data.hpp"

/// A selective scan with random inputs, and its outputs and gradients, for tests.
namespace test::scan {

using namespace moe_mamba;

struct alignas(Arena::alignment) CacheLine {
  std::byte bytes[Arena::alignment];
};

template <class C>
struct Outputs {
  std::vector<C> y, state, checkpoints;
};

template <class C>
struct Gradients {
  std::vector<C> du, ddelta, dz, db, dc, dbias, da_log, dd, dstate;

  /// Calls f(name, a, b) with each pair of members.
  template <class Other, class F>
  void with(const Gradients<Other>& other, const F& f) const {
    f("du", du, other.du), f("ddelta", ddelta, other.ddelta), f("dz", dz, other.dz), f("db", db, other.db);
    f("dc", dc, other.dc), f("dbias", dbias, other.dbias), f("da_log", da_log, other.da_log), f("dd", dd, other.dd);
    f("dstate", dstate, other.dstate);
  }
};

/// Inputs of a scan; equal arguments give equal values for each C. Rows and states are padded.
template <class C, class S, int N>
struct Problem {
  Shape shape;
  Index channels, stride, state_stride;
  std::vector<C> u, delta, b, c, z, state, dy, dstate;
  std::vector<S> bias, a_log, d;
  std::vector<C> dbias, da_log, dd;  // initial values, to which their gradients are added

  Problem(Shape s, Index e, std::uint64_t seed, double low = -4, double high = 1)
      : shape(s), channels(e), stride(e + 3), state_stride(N * e + 5) {
    const Index t = s.tokens();
    u = test::uniform<C>(t * stride, seed + 1);
    delta = test::uniform<C>(t * stride, seed + 2, low, high);
    z = test::uniform<C>(t * stride, seed + 3, -3, 3);
    dy = test::uniform<C>(t * stride, seed + 4);
    b = test::uniform<C>(t * (N + 2), seed + 5);
    c = test::uniform<C>(t * (N + 2), seed + 6);
    state = test::uniform<C>(s.batch * state_stride, seed + 7);
    dstate = test::uniform<C>(s.batch * state_stride, seed + 8);
    bias = test::uniform<S>(e, seed + 9);
    a_log = test::uniform<S>(e * N, seed + 10, -1, 3);
    d = test::uniform<S>(e, seed + 11);
    dbias = test::uniform<C>(e, 1), da_log = test::uniform<C>(e * N, 2), dd = test::uniform<C>(e, 3);
  }

  MatrixView<const C> wide(const std::vector<C>& values) const {
    return {values.data(), shape.tokens(), channels, stride};
  }
  MatrixView<const C> narrow(const std::vector<C>& values) const { return {values.data(), shape.tokens(), N, N + 2}; }

  template <class Device>
  Outputs<C> forward(Device& device, bool with_state = true) const {
    const Index t = shape.tokens();
    Outputs<C> out{test::poison<C>(t * channels), state,
                   test::poison<C>(shape.batch * scan_checkpoints(shape.length) * N * channels)};
    std::vector<CacheLine> scratch(selective_scan_scratch<C>(device, shape, channels, N) / sizeof(CacheLine));
    selective_scan(
        device, SelectiveScan<C, S, N>{
                    shape, wide(u), wide(delta), narrow(b), narrow(c), wide(z), bias.data(), a_log.data(), d.data(),
                    with_state ? StateView<C>{out.state.data(), state_stride} : StateView<C>{}, out.checkpoints.data(),
                    matrix(out.y.data(), t, channels), Arena(reinterpret_cast<std::byte*>(scratch.data()))});
    return out;
  }

  template <class Device>
  Gradients<C> backward(Device& device, const std::vector<C>& checkpoints, bool with_state = true) const {
    const Index t = shape.tokens(), e = channels;
    Gradients<C> g{test::poison<C>(t * e),
                   test::poison<C>(t * e),
                   test::poison<C>(t * e),
                   test::poison<C>(t * N),
                   test::poison<C>(t * N),
                   dbias,
                   da_log,
                   dd,
                   dstate};
    std::vector<CacheLine> scratch(selective_scan_scratch<C>(device, shape, channels, N) / sizeof(CacheLine));
    selective_scan_backward(device, SelectiveScanBackward<C, S, N>{
                                        shape,
                                        wide(u),
                                        wide(delta),
                                        narrow(b),
                                        narrow(c),
                                        wide(z),
                                        bias.data(),
                                        a_log.data(),
                                        d.data(),
                                        checkpoints.data(),
                                        wide(dy),
                                        matrix(g.du.data(), t, e),
                                        matrix(g.ddelta.data(), t, e),
                                        matrix(g.dz.data(), t, e),
                                        matrix(g.db.data(), t, N),
                                        matrix(g.dc.data(), t, N),
                                        g.dbias.data(),
                                        g.da_log.data(),
                                        g.dd.data(),
                                        with_state ? StateView<C>{g.dstate.data(), state_stride} : StateView<C>{},
                                        Arena(reinterpret_cast<std::byte*>(scratch.data()))});
    return g;
  }

  /// Steps first … first + length - 1 of sequence `sequence` alone, without a state yet.
  Problem part(Index sequence, Index first, Index length) const {
    Problem p = *this;
    p.shape = {1, length};
    const auto cut = [&](std::vector<C>& values, Index width) {
      const auto begin = values.begin() + (sequence * shape.length + first) * width;
      values = std::vector<C>(begin, begin + length * width);
    };
    for (auto* rows : {&p.u, &p.delta, &p.z, &p.dy}) cut(*rows, stride);
    for (auto* rows : {&p.b, &p.c}) cut(*rows, N + 2);
    for (auto* states : {&p.state, &p.dstate}) {
      const auto begin = states->begin() + sequence * state_stride;
      *states = std::vector<C>(begin, begin + state_stride);
    }
    return p;
  }
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](T x, T y) {
           return std::bit_cast<std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>>(x) ==
                  std::bit_cast<std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>>(y);
         });
}

}  // namespace test::scan
