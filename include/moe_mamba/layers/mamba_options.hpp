#pragma once

#include "moe_mamba/blocks/routing.hpp"

namespace moe_mamba::inline v0_2 {

/// Experts in place of a Mamba block's projections, and what chooses them.
struct MambaExperts {
  int input = 0;                  ///< experts of the projection to the convolution's input x; 0: a single matrix
  int gate = 0;                   ///< experts of the projection to the gate z
  int output = 0;                 ///< experts of the output projection
  int hidden = 0;                 ///< hidden width of experts with two matrices; 0: an expert is one matrix
  bool separate_routers = false;  ///< one router per projection instead of one for all
  RoutingOptions routing;         ///< of each router, except for the number of experts

  /// The largest of the three numbers; 0 if there are no experts.
  constexpr int most() const {
    const int first = input > gate ? input : gate;
    return first > output ? first : output;
  }

  /// The options of a router over `experts` experts.
  constexpr RoutingOptions routing_over(int experts) const {
    RoutingOptions all = routing;
    all.experts = experts;
    return all;
  }
};

/// The options of a Mamba block.
struct MambaOptions {
  int states = 16;               ///< N, per channel
  int taps = 4;                  ///< K, of the convolution
  int expand = 2;                ///< inner width over width
  int inner = 0;                 ///< E, the inner width; 0: expand times the width
  int step_rank = 0;             ///< R; 0: a sixteenth of the width, rounded up
  bool projection_bias = false;  ///< whether the input and output projections have biases
  bool convolution_bias = true;
  MambaExperts experts;

  /// The same with every default that depends on the width resolved.
  constexpr MambaOptions of_width(int width) const {
    MambaOptions all = *this;
    if (inner == 0) all.inner = expand * width;
    if (step_rank == 0) all.step_rank = (width + 15) / 16;
    return all;
  }
};

}  // namespace moe_mamba::inline v0_2
