// From where on a figure counts as bad: the one list (lights.def, and what --threshold sets) behind
// the traffic lights, the findings in words and the page of definitions.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace moe {

struct Threshold {
  std::string id, name, column;
  double yellow, red;  // red < yellow: low values are the bad ones
  std::string source;
};

// What random routing gives this many times over is no worse than chance: the worst of several
// layers lies above what one of them gives.
constexpr double chance_slack = 2;

// The registry's thresholds with what the caller sets: "load_cv=0.5,1.0". Throws Error(usage).
std::vector<Threshold> thresholds(const std::vector<std::string>& settings);

// That of one definition; of none: the registry's. Throws Error(bug) for an id without a light.
Threshold threshold_of(std::string_view id, const std::vector<Threshold>& all);

}  // namespace moe
