// Another pass over a trace for a metric that judges what it planned in the first.
#pragma once
#include "analysis/metric/metric.h"

namespace moe {

// Shows `metric` every window as the first pass of a report does, and ends with its finish(). To be
// called from another metric's finish(); reports no progress.
void read_again(const TraceSource&, Metric& metric, const AnalyzeOptions&);

}  // namespace moe
