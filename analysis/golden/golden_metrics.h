// Holds every metric to files of expected values (`moe verify --golden DIR`): traces of a few dozen
// tokens, placements, and closed forms of random routing, each with what brute force gave in f64.
#pragma once
#include <filesystem>

#include "lib/trace/golden.h"

namespace moe {

struct GoldenMetricResult {
  std::string file;
  bool passed = false;
  int ids = 0;  // compared
  // largest |a - b| / max(1, |b|) of what is computed in f64 throughout; allowed: 1e-10, counts and
  // ids exact
  double error = 0;
  // of what passes through numbers that a trace stores as f32 (weights, logits, norms); allowed:
  // 1e-5
  double float_error = 0;
  std::string where;  // the id with the largest error, or why it failed
};

// Whether the folder holds such files (the first *.h5 that opens says so by its attribute "kind"),
// or the file is one.
bool has_golden_metrics(const std::filesystem::path& folder);

// Every *.h5 of the folder, by name. A damaged file is a failed case. Throws Error(input) where the
// folder cannot be read.
std::vector<GoldenMetricResult> verify_golden_metrics(const std::filesystem::path& folder);
GoldenMetricResult verify_golden_metric(const std::filesystem::path& file);

}  // namespace moe
