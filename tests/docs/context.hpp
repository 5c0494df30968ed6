#pragma once

// Declarations that the shorter snippets in README.md and docs/ assume. They are compiled in functions after this.
#include <iostream>
#include <span>
#include <utility>
#include <vector>

#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net =
    LanguageModel<Vocabulary<256>, Width<512>, Repeat<8, Mamba<State<16>>, Moe<Experts<32>, TopK<1>, Hidden<1536>>>>;

extern Model<Net> model;
extern Trainer<Net, float, Cpu, Cosine> trainer;
extern decltype(windows(std::declval<const std::vector<unsigned char>&>(), Length{}, Batch{}, Seed{})) batches;

extern std::vector<double> parameters, state_memory;
extern std::span<const double> inputs;
extern std::span<double> outputs;
