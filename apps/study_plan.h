// moe study --dry-run: what would be run, and from a short probe how long and in how much memory.
#pragma once
#include <string>

#include "lib/study/runner.h"

namespace moe {

// Every arm's commands once, with few training steps, in a temporary folder; prints what a whole
// study would take. Returns the exit code: 1 where an arm fails or `budget` (seconds, 0 = none)
// would not suffice.
int plan_study(const Study&, int jobs, double budget, const std::string& program, StudyObserver&);

}  // namespace moe
