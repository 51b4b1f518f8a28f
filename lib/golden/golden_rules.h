// Case files of kinds other than a whole layer: losses over several layers' logits, and updates
// without gradient. What has no counterpart of ours (accounting tables) is unsupported.
#pragma once
#include "lib/golden/comparison.h"

namespace moe {

// throws Unsupported
void run_golden_rules(const GoldenFile&, const std::string& kind, Comparison&);
// dense bodies made sparse; throws Unsupported
void run_golden_transform(const GoldenFile&, Comparison&);

}  // namespace moe
