// Traffic lights: the worst layer of each headline figure of balance against two thresholds, in
// words and colour. What random routing would give just as well is green: a short trace is uneven
// by chance.
#pragma once
#include <optional>

#include "analysis/metric/thresholds.h"
#include "analysis/table.h"

namespace moe {

enum class Light { green, yellow, red };

// Puts the table of lights first and a sentence before the findings; returns the worst of them,
// nothing where no figure was found.
std::optional<Light> add_lights(Report&, const std::vector<Threshold>&);

}  // namespace moe
