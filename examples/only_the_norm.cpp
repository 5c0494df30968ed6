/// A single kernel call: RMS norm of rows of the caller's memory.
#include <cmath>
#include <cstdio>
#include <vector>

#include "moe_mamba/cpu/calls.hpp"

using namespace moe_mamba;

int main() {
  const std::vector<double> gain{1, 1, 2};
  std::vector<double> rows{3, 4, 0, -1, -1, -1};

  cpu::Device device;
  cpu::rms_norm<double>(device, rows, gain, 1e-5, rows);

  double worst = 0;
  const double first = std::sqrt(25.0 / 3 + 1e-5), second = std::sqrt(1 + 1e-5);
  const std::vector<double> expected{3 / first, 4 / first, 0, -1 / second, -1 / second, -2 / second};
  for (std::size_t i = 0; i < rows.size(); ++i) worst = std::fmax(worst, std::abs(rows[i] - expected[i]));
  std::printf("%.4f %.4f %.4f, %.4f %.4f %.4f\n", rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]);
  return worst < 1e-14 ? 0 : 1;
}
