// Where a model's experts come from, as hashes of weights: expert 3 of one training has nothing to
// do with expert 3 of another, but all to do with expert 3 of a training that began with it.
#pragma once
#include "lib/run/run_folder.h"
#include "lib/trace/trace.h"

namespace moe {

// XXH3-64 over names and values of all parameters in memory, as 16 hexadecimal digits. Experts that
// are read from their files when used are left out.
std::string weights_xxh3(Decoder<float>&);

// The trainings behind a checkpoint, oldest first, its own last; none of a folder from elsewhere,
// whose weights are an origin of their own.
std::vector<std::string> lineage_of(const LoadedModel&);

// Of a trace of this checkpoint, and of a training that is recorded, whose weights change.
void describe_origin(TraceHeader&, const LoadedModel&);
void describe_origin(TraceHeader&, const RunState&);

}  // namespace moe
