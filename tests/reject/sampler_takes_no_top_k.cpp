// expect: TopK<K> is an option of Moe and Mamba; to sample from the K most probable tokens, use TopKSampling\{K\}
#include "moe_mamba/generate/sampling.hpp"
#include "moe_mamba/language/options.hpp"

using namespace moe_mamba;

Token drawn(std::span<const float> logits) { return Sampler(TopK{3}, Seed{1}, 256)(logits); }
