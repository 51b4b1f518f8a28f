// What an engine that only counts leaves of a trace: tokens per expert of each step, no tokens.
#pragma once
#include "analysis/metric/metric.h"

namespace moe {

inline TraceHeader counted_header(const MemoryTrace& full) {
  TraceHeader h = full.header();
  const TraceRows rows = full.read(0, full.tokens(), no_fields);
  const Index width = h.max_experts();
  h.counts = Matrix<std::uint32_t>(Index(full.steps().size()), Index(h.layers.size()) * width);
  for (std::size_t l = 0; l < h.layers.size(); ++l) {
    for (std::size_t t = 0; t < rows.tokens(); ++t) {
      for (const int e : rows.layer[l].expert.row(Index(t))) {
        if (e >= 0 && rows.valid(t))
          ++h.counts(Index(rows.step[t]), Index(l) * width + e);
      }
    }
  }
  return h;
}

inline MemoryTrace counted(TraceHeader h, std::vector<TraceStep> steps) {
  for (TraceStep& s : steps)
    s.num_tokens = 0;
  TraceRows none;
  none.layer.resize(h.layers.size());
  return {std::move(h), {}, std::move(steps), std::move(none)};
}

// The same routing as an engine that only counts would have left it.
inline MemoryTrace twin_of(const MemoryTrace& full) {
  return counted(counted_header(full), full.steps());
}

}  // namespace moe
