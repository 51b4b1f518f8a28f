// Which findings come first, and how their light is called: the same in every short answer.
#pragma once
#include <vector>

#include "analysis/table.h"

namespace moe::drawing {

// "red", "yellow", "grey", "green"; "chance": no more than random routing; "note": stands out.
const char* word_of(Priority);

// The most urgent first, in their order where they are as much so. Without what the lights say
// already, where there are lights.
std::vector<const Finding*> ranked_findings(const Report&);

}  // namespace moe::drawing
