// The same study twice: on two machines, two versions, two sizes. What moved, and whether it moved
// by more than the scatter of the seeds.
#pragma once
#include <filesystem>

#include "analysis/table.h"

namespace moe {

// Of two folders of studies (their study.json). Arms and measures of the same names are compared;
// what only one of them has is named. Throws Error(input) for what is no study.
Report compared_studies(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace moe
