// Ranks of one run must be told the same and read the same: what one of them has otherwise would
// not be noticed, and its gradients would go into the sum with those of the others.
#pragma once
#include "lib/core/comm.h"
#include "lib/files/json.h"
#include "lib/run/start_run.h"

namespace moe {

// Throws Error(environment) on every rank, with the first fact that a rank has otherwise than rank
// 0, by its path ("data.0.train_tokens"). All ranks call this, and those below.
void require_same_on_ranks(Comm&, About, const Json& facts);
// What a run computes with: the program, its options, its layout, the weights and the text.
void require_same_run(const RunContext&, const RunState&, const Corpus&);
// What is read where nothing trains: a run's newest checkpoint may be another one a moment later.
void require_same_reading(Comm&, const LoadedModel&, const Corpus&);

}  // namespace moe
