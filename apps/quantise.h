// moe edit --quantise: its words, and what they make of a model.
#pragma once
#include <string>

#include "lib/edit/quantise.h"

namespace moe {

// "experts=int8", "experts=int4,by=load,keep=10%", "experts=int8|int4,by=importance" with `bytes`,
// the share of the bytes that the experts take now (0 = no limit). Throws Error(usage) for an
// unknown word, and where words contradict each other.
QuantiseOptions quantise_options(const std::string& text, double bytes);

}  // namespace moe
