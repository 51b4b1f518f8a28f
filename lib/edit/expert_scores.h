// How much each expert of a model was used and how alike what they put out was, read from a trace
// of it: what --remove, --add and --merge go by.
#pragma once
#include "lib/edit/edit.h"
#include "lib/trace/reader.h"

namespace moe {

enum class ExpertScore { load, weight, reap };

// (MoE layers)(E). load: share of the choices of valid tokens. weight: share of the sum of their
// combine weights. reap: mean over the tokens that
// chose an expert of its weight times the norm of its output (2510.13999), 0 for an unused one; the
// trace must hold output norms (moe trace --out-norm). Throws Error(usage) where the trace is not
// of this model's shape or lacks what is asked for.
ExpertScores expert_scores(const Decoder<float>&, const TraceReader&, ExpertScore);

// (MoE layers) of (E,E): mean cosine of what two experts put out for the same tokens, as moe trace
// measures it (--redundancy-tokens). Throws Error(usage) as above.
std::vector<Matrix<float>> output_cosine(const Decoder<float>&, const TraceReader&);

}  // namespace moe
