// Case files of kinds other than a whole layer: losses over several layers' logits, and updates without gradient. What has no
// counterpart of ours (dense-to-sparse transforms, accounting tables) is unsupported.
#pragma once
#include "lib/golden/comparison.h"

namespace moe {

void run_golden_rules(const GoldenFile&, const std::string& kind, Comparison&);  // throws Unsupported

}  // namespace moe
