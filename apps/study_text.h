// What a study found, for a terminal: the question, the verdicts, the arms with intervals; at most
// 40 lines at 80 columns, with what was left out named.
#pragma once
#include <string>

#include "apps/terminal.h"
#include "lib/study/outcome.h"

namespace moe {

inline constexpr int most_study_lines = 40;

std::string study_text(const Study&, const Outcome&, int width, const Style&);

}  // namespace moe
