/// A surrogate inside a solver: a recurrent model replaces the response of a material with memory. 10,000 cells advance
/// together; parameters, states and fields are in the solver's own memory, and no step allocates.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

/// Inputs per cell: strain rates along two axes, temperature, density. Outputs: two stresses.
using Closure = SequenceModel<Inputs<4>, Outputs<2>, Width<32>, Repeat<2, Mamba<State<8>>>>;
static_assert(cost<Closure, double>.state_bytes < 16'384);  // a budget per cell, checked at compile time

namespace {

std::size_t allocations = 0;

/// Training data: a sequence of `length` steps with random loads, whose stresses relax faster at higher temperatures.
void record(Random& random, Index length, double* inputs, double* targets) {
  const double heat = random.uniform(0.1, 0.3), density = random.uniform(0.5, 1.5);
  double rates[2] = {0, 0}, stress[2] = {0, 0};
  for (Index t = 0; t < length; ++t, inputs += 4, targets += 2) {
    for (int axis = 0; axis < 2; ++axis) {
      if (t % 16 == 0) rates[axis] = random.uniform(-1, 1);
      stress[axis] += 0.2 * density * rates[axis] - heat * stress[axis];
      targets[axis] = stress[axis];
    }
    for (int i = 0; i < 4; ++i) inputs[i] = std::array{rates[0], rates[1], heat, density}[static_cast<std::size_t>(i)];
  }
}

}  // namespace

// Not inlined: g++ would see new and free side by side and warn of a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main() {
  // The solver's arrays, in any memory: its own pool, a shared segment, a mapped file.
  constexpr Index cells = 10'000;
  std::vector<double> parameters(cost<Closure, double>.parameters);
  std::vector<double> state_memory(cells * States<Closure, double>::state_size);
  std::vector<double> fields(cells * 4), stresses(cells * 2);

  // Train briefly, in place. A real surrogate would be loaded with load(closure, "closure.safetensors").
  initialise<Closure>(Seed{1}, parameters.data());
  Model<Closure, double> closure(std::span<double>{parameters});
  constexpr Shape shape{16, 64};
  Trainer trainer(closure, AdamW{.learning_rate = 4e-3}, Cosine{.warmup = 10, .steps = 150});
  std::vector<double> inputs(shape.tokens() * 4), targets(shape.tokens() * 2);
  Random random(Seed{1});
  double error = 0;
  for (int step = 0; step < 150; ++step) {
    for (Index b = 0; b < shape.batch; ++b) {
      record(random, shape.length, &inputs[static_cast<std::size_t>(b * shape.length * 4)],
             &targets[static_cast<std::size_t>(b * shape.length * 2)]);
    }
    error = trainer.step(SeriesBatch<double>{inputs, targets, shape}).loss;
  }

  // The solver's loop.
  Cpu device(Threads{2});
  Workspace<Closure, double> workspace(device, {cells, 1});
  States<Closure, double> states(state_memory, cells);
  const std::size_t before = allocations;
  double sum = 0;
  for (int step = 0; step < 10; ++step) {
    for (std::size_t cell = 0; cell < cells; ++cell) {
      const double phase = 1e-3 * static_cast<double>(cell) + 0.1 * step;
      const double field[4] = {std::sin(phase), std::cos(phase), 0.2, 1};
      std::copy(field, field + 4, &fields[4 * cell]);
    }
    closure.step(workspace, states, fields, stresses);
    sum += stresses[0];
  }
  std::printf("mean squared error %.5f after training; %td cells of %td bytes of state; %zu allocations in the loop\n",
              error, cells, cost<Closure, double>.state_bytes, allocations - before);
  return error < 0.02 && allocations == before && std::isfinite(sum) ? 0 : 1;
}
