// /steps and /sequences as they grow: a column of numbers each.
#pragma once
#include <map>
#include <vector>

#include "lib/trace/h5.h"
#include "lib/trace/trace.h"

namespace moe {

// Writes records behind the first `steps_from` and `sequences_from` of the datasets, which are open
// by their paths, and flushes what was written.
void write_records(const std::map<std::string, h5::Handle>& datasets, std::size_t steps_from,
                   const std::vector<TraceStep>& steps, std::size_t sequences_from,
                   const std::vector<TraceSequence>& sequences);

}  // namespace moe
