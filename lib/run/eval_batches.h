// Batches of a corpus for whoever only looks at a model: every piece of the valid split, domain by
// domain, or as many training batches as asked for.
#pragma once
#include <functional>

#include "datasets/dataset.h"

namespace moe {

struct EvalBatches {
  // about this many in all, in whole sequences, shared equally by the domains; 0 = the whole valid
  // split, or 100,000 of train
  Index tokens = 0;
  int sequences = 16, length = 256;
};
// Tokens of all these batches, for progress; an upper bound.
Index token_count(const Corpus&, const EvalBatches&);
// Calls `visit` for each batch in turn, until it returns false.
void for_each_batch(const Corpus&, const EvalBatches&,
                    const std::function<bool(const Batch&)>& visit);

}  // namespace moe
