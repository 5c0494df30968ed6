#include "ceilings.hpp"
#include "harness.hpp"
#include "moe_mamba/moe_mamba.hpp"

namespace benchmarks {

namespace {

using namespace moe_mamba;

using Small = SequenceModel<Inputs<4>, Outputs<2>, Width<32>, Repeat<2, Mamba<State<8>>>>;

template <class S>
void measure(Report& report, const std::string& scalar, Index cells) {
  const Model<Small, S> model(Seed{1});
  for (const int threads : report.settings().threads) {
    cpu::Device device(Threads{threads});
    Workspace<Small, S> workspace(device, {cells, 1});
    States<Small, S> states(cells);
    const Buffer<S> inputs(cells * Small::input_width, -1, 1), outputs(cells * Small::output_width);
    const auto samples = interleave(
        report.settings(),
        {[&] { model.step(workspace, states, inputs.span(), outputs.span()); }, [&] { multiply_add(device); }});
    const double operations = cost<Small>.flops_per_token * static_cast<double>(cells);
    Row row{"step of " + std::to_string(cells) + (cells == 1 ? " cell, " : " cells, ") + scalar,
            threads,
            samples[0],
            1e9 * samples[0].median() / static_cast<double>(cells),
            "ns/cell",
            {},
            0};
    if constexpr (std::same_as<S, float>) row.comparisons = {of_peak(device, operations, samples[0], samples[1])};
    report.add(row);
  }
}

}  // namespace

void sequence_model(Report& report) {
  report.begin_group("sequence-model", "4 inputs, 2 outputs, two Mamba layers of width 32 with 8 states");
  for (const Index cells : {Index{1}, Index{16}, Index{1000}}) {
    measure<float>(report, "float", cells);
    measure<double>(report, "double", cells);
  }
}

}  // namespace benchmarks
