// How much each expert of a model was used, read from a trace of it: what --remove and --add go by.
#pragma once
#include "lib/edit/edit.h"
#include "lib/trace/reader.h"

namespace moe {

enum class ExpertScore { load, reap };

// (MoE layers)(E). load: share of the choices of valid tokens. reap: mean over the tokens that
// chose an expert of its weight times the norm of its output (2510.13999), 0 for an unused one; the
// trace must hold output norms (moe trace --out-norm). Throws Error(usage) where the trace is not
// of this model's shape or lacks what is asked for.
ExpertScores expert_scores(const Decoder<float>&, const TraceReader&, ExpertScore);

}  // namespace moe
