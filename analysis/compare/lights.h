// Traffic lights: the worst layer of each headline figure of balance against two thresholds, in
// words and colour. What random routing would give just as well is green: a short trace is uneven
// by chance.
#pragma once
#include <optional>

#include "analysis/table.h"

namespace moe {

struct Threshold {
  std::string id, name, column;
  double yellow, red;  // red < yellow: low values are the bad ones
  std::string source;
};

// The registry's thresholds with what the caller sets: "load_cv=0.5,1.0". Throws Error(usage).
std::vector<Threshold> thresholds(const std::vector<std::string>& settings);

enum class Light { green, yellow, red };

// Puts the table of lights first and a sentence before the findings; returns the worst of them,
// nothing where no figure was found.
std::optional<Light> add_lights(Report&, const std::vector<Threshold>&);

}  // namespace moe
