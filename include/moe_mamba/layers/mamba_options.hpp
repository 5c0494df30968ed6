#pragma once

#include "moe_mamba/blocks/routing.hpp"

namespace moe_mamba::inline v0_2 {

/// Experts in place of a Mamba block's projections, and what chooses them.
struct MambaExperts {
  int input = 0;                  ///< experts of the projection to the convolution's input x; 0: one matrix, no experts
  int gate = 0;                   ///< of that to the gate z
  int output = 0;                 ///< of that out of the block
  int hidden = 0;                 ///< hidden width of experts with two matrices; 0: an expert is one matrix
  bool separate_routers = false;  ///< a router for each of these projections, not one for all
  RoutingOptions routing;         ///< of each router but for the number of its experts

  /// The largest of the three numbers; 0 where there are no experts.
  constexpr int most() const {
    const int first = input > gate ? input : gate;
    return first > output ? first : output;
  }

  /// Of a router over `experts` experts.
  constexpr RoutingOptions routing_over(int experts) const {
    RoutingOptions all = routing;
    all.experts = experts;
    return all;
  }
};

/// The numbers of a Mamba block.
struct MambaOptions {
  int states = 16;               ///< N, of each channel
  int taps = 4;                  ///< K, of the convolution
  int expand = 2;                ///< inner width over width
  int inner = 0;                 ///< E, the inner width; 0: expand times the width
  int step_rank = 0;             ///< R; 0: a sixteenth of the width, rounded up
  bool projection_bias = false;  ///< of the projections into and out of the block
  bool convolution_bias = true;
  MambaExperts experts;

  /// The same with nothing left to the width.
  constexpr MambaOptions of_width(int width) const {
    MambaOptions all = *this;
    if (inner == 0) all.inner = expand * width;
    if (step_rank == 0) all.step_rank = (width + 15) / 16;
    return all;
  }
};

}  // namespace moe_mamba::inline v0_2
