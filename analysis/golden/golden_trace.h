// A golden metric case as rows in memory, and the values it expects.
#pragma once
#include "analysis/metric/metric.h"
#include "lib/trace/golden.h"

namespace moe {

// group: "trace", or "trace_b" for the reference of two. Throws Error(input) where the file is not
// what it should be.
MemoryTrace golden_trace(const GoldenFile&, const char* group = "trace");
// Of a case of the kind modality_trace (format moe-golden-modal). Throws the same.
MemoryTrace golden_modality_trace(const GoldenFile&);
// every metric with the parameters of the case
std::vector<std::string> golden_specs(const GoldenFile&);

// The (E,E) matrices of the case's experts that are computed from weights and outputs, by metric
// id; none where the file has neither.
std::vector<std::pair<std::string, Matrix<double>>> golden_pairs(const GoldenFile&);

}  // namespace moe
