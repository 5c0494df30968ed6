// expect: constraints? (not satisfied|failure).*Model
// expect: StorageScalar
// expect: same_as<T, float> \|\| .*same_as<T, double> \|\| .*same_as<T, bfloat16>
#include "definition.hpp"
#include "moe_mamba/model/model.hpp"

using namespace moe_mamba;

using Net = LanguageModel<Vocabulary<256>, Width<64>, Mamba<>>;

using Stored = Model<Net, int>;
