// Batches of a corpus for verbs that only look: every piece of the valid split, domain by domain,
// or as many train batches as asked for.
#pragma once
#include <functional>

#include "datasets/dataset.h"

namespace moe {

struct WalkOptions {
  // about this many in all, in whole sequences, shared equally by the domains; 0 = the whole valid
  // split, or 100,000 of train
  Index tokens = 0;
  int sequences = 16, length = 256;
};
// tokens that walk() will visit, for progress; an upper bound
Index walk_size(const Corpus&, const WalkOptions&);
// false stops
void walk(const Corpus&, const WalkOptions&, const std::function<bool(const Batch&)>& visit);

}  // namespace moe
