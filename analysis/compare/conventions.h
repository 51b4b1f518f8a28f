// The figures of other tools as those tools compute them, quirks included, beside ours: a registry
// of names, and a table a tool.
#pragma once
#include "analysis/metric/metric.h"

namespace moe {

struct ToolConvention {
  std::string_view name, about;
};
std::span<const ToolConvention> conventions();

struct Upstream {
  std::string_view convention, name, id, reduction, our_id, our_reduction, difference;
};
std::span<const Upstream> upstream_figures();

// One table: their name, layer, their value, our id, our value, how theirs differs. Throws
// Error(usage) for an unknown name. A figure that the trace has no data for is named in a warning.
Report in_convention(const TraceSource&, std::string_view name, const AnalyzeOptions& = {});

}  // namespace moe
