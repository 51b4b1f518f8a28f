// moe eval A B C: losses of several models on the same text, with what their differences are worth.
#pragma once
#include <string>
#include <vector>

#include "analysis/table.h"
#include "lib/run/evaluation.h"

namespace moe {

struct NamedLosses {
  std::string name, tokenizer;
  std::vector<DomainLoss> losses;
};

// One table of losses by domain and one of the differences from the first, with 95 % intervals by
// sequences, and a sentence on each: better, worse, or within what other text of the same kind
// would change. Throws Error(usage) where two did not read the same tokens.
Report compared_losses(const std::vector<NamedLosses>&);

}  // namespace moe
