// Reports to draw: a realistic one (8 layers, 16 experts, every kind of table, Chinese and English
// text), a small one for the golden files with every awkward value in it, and a large one for
// sizes.
#pragma once
#include "analysis/table.h"

namespace moe::test {

Report realistic();
// NaN, infinities, <script>, pipes, quotes, commas, broken UTF-8, empty tables
Report awkward();
Report large(int layers, int experts);  // load map, pair maps, a sample

}  // namespace moe::test
