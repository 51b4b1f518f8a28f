// moe report of run folders: training curves.
#pragma once
#include <string>
#include <vector>

#include "apps/output.h"

namespace moe {

// Whether the paths are runs; throws Error(usage) where some are and some are not.
bool are_runs(const std::vector<std::string>& paths);

// Reads their logs and writes curves in the format that was asked for: as a report, as csv or json
// in long form, or with `tensorboard` a folder of event files, one folder a run.
int report_runs(const std::vector<std::string>& paths, const OutputOptions&);

}  // namespace moe
