// A golden metric case as rows in memory, and the values it expects.
#pragma once
#include "analysis/metric/metric.h"
#include "lib/trace/golden.h"

moe::MemoryTrace golden_trace(const moe::GoldenFile&, const char* group = "trace");
std::vector<std::string> golden_specs(const moe::GoldenFile&);  // every metric with the parameters of the case
