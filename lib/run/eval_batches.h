// Batches of a corpus for whoever only looks at a model: every piece of the valid split, or as many
// training batches as asked for.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "datasets/dataset.h"

namespace moe {

// How the sequences of several domains follow each other. mixed: interleaved in proportion to their
// numbers, so that a stretch of a trace (a batch, a half, its first rows) has the domains of the
// whole. domain: one domain after another.
enum class SequenceOrder { mixed, domain };

struct EvalBatches {
  // about this many in all, in whole sequences, shared equally by the domains; 0 = the whole valid
  // split, or 100,000 of train
  Index tokens = 0;
  int sequences = 16, length = 256;
  SequenceOrder order = SequenceOrder::mixed;
  std::uint64_t seed = 0;  // of routers that draw: batch n draws from (seed, n)
};
// Tokens of all these batches, for progress; an upper bound.
Index token_count(const Corpus&, const EvalBatches&);
// Calls `visit` for each batch in turn with numbers for routers that draw, which depend on the seed
// and the number of the batch alone, until it returns false. Throws Error(usage) where training
// batches are asked for domain by domain.
void for_each_batch(const Corpus&, const EvalBatches&,
                    const std::function<bool(const Batch&, Rng&)>& visit);

// The domain of each of sum(counts) sequences, counts[d] of them of domain d. After any number i of
// them, domain d has come within 1 - 1/(2D - 2) of i counts[d] / sum(counts) times, D the number of
// domains with sequences (the quota method of Tijdeman, "The chairman assignment problem", 1980).
std::vector<int> interleaved(const std::vector<Index>& counts);

}  // namespace moe
