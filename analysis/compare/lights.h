// Traffic lights: the worst layer of each headline figure of balance against two thresholds, in
// words and colour. Where random routing of that size would often trip one, the light is grey: see
// analysis/metric/verdict.h.
#pragma once
#include <optional>

#include "analysis/metric/thresholds.h"
#include "analysis/metric/verdict.h"
#include "analysis/table.h"

namespace moe {

// Puts the table of lights first and a sentence before the findings; returns the worst of them,
// nothing where no figure was found.
std::optional<Light> add_lights(Report&, const std::vector<Threshold>&);

}  // namespace moe
