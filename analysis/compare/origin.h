// Whether the experts of two traces are the same experts: by the hashes of weights that the traces
// carry. Ids of two trainings that share nothing mean nothing to each other.
#pragma once
#include <string>

#include "lib/trace/trace.h"

namespace moe {

enum class Kinship {
  same_weights,
  related,    // a training and its checkpoints, or trainings that began with the same weights
  strangers,  // both say where they come from, and it is not the same
  unknown     // one does not say
};
Kinship kinship(const TraceHeader&, const TraceHeader&);
// The same as a fact of the report: "the same weights (0123456789abcdef)"
std::string kinship_text(const TraceHeader&, const TraceHeader&);

}  // namespace moe
