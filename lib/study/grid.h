// The arms of a grid: every combination of the levels of its factors.
#pragma once
#include <string>
#include <vector>

#include "lib/study/study.h"

namespace moe {

struct Factor {
  std::string name;  // of an option without its dashes, or of a {variable} of the command lines
  std::vector<std::string> levels;
};
// The last factor moves fastest; arms are named by their levels: "k=2, router=softmax", or by the
// level alone where there is one factor. A factor that command lines name in braces fills that
// place, any other is an option: --router softmax. Throws Error(usage) for a factor without levels.
std::vector<Arm> grid_of(const std::vector<Factor>&, const std::vector<std::string>& commands);

}  // namespace moe
