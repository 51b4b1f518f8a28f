// Batches of a corpus for verbs that only look: every piece of the valid split, domain by domain, or as many train batches as
// asked for.
#pragma once
#include <functional>

#include "datasets/dataset.h"

namespace moe {

struct WalkOptions {
  Index tokens = 0;  // about this many in all, in whole sequences, shared equally by the domains; 0 = the whole valid split, or 100,000 of train
  int sequences = 16, length = 256;
};
Index walk_size(const Corpus&, const WalkOptions&);  // tokens that walk() will visit, for progress; an upper bound
void walk(const Corpus&, const WalkOptions&, const std::function<bool(const Batch&)>& visit);  // false stops

}  // namespace moe
