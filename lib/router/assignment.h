// An exact balanced assignment: every expert gets floor(T/E) or ceil(T/E) tokens and the sum of
// values is as large as it can be.
#pragma once
#include <vector>

#include "lib/core/view.h"

namespace moe {

// value (T,E), finite; returns the expert of each row. Exactly T mod E experts get one more than
// the others.
std::vector<int> balanced_assignment(View<const double> value);

}  // namespace moe
