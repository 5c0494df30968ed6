// expect: a trainer takes a TokenBatch of a LanguageModel and a SeriesBatch<T> of a SequenceModel
// expect: BatchOfTrainer<.*SeriesBatch<float>, .*SeriesBatch<double>
#include "moe_mamba/moe_mamba.hpp"

using namespace moe_mamba;

using Net = SequenceModel<Inputs<2>, Outputs<1>, Width<8>, Mamba<>>;

double loss(Trainer<Net, double, Cpu, Constant>& trainer, const SeriesBatch<float>& batch) {
  return trainer.step(batch).loss;
}
