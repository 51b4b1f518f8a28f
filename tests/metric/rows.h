// Traces whose choices a test gives token by token.
#pragma once
#include <algorithm>

#include "analysis/metric/metric.h"

namespace moe {

// Tokens of one layer in sequences of 16; the choices of each by `choose`(token, sequence).
// Sequence q is of domain q mod `domains`, which have no names; 0: of none.
template <class Choose>
MemoryTrace trace_of(int experts, int k, int sequences, Choose choose, int domains = 0) {
  TraceHeader h;
  TraceLayer layer;
  layer.experts = experts;
  layer.top_k = k;
  h.layers = {layer};
  TraceRows rows;
  std::vector<TraceSequence> all;
  rows.layer.resize(1);
  rows.layer[0].expert = Matrix<int>(Index(sequences) * 16, k);
  for (int q = 0; q < sequences; ++q) {
    const std::uint16_t domain = domains > 0 ? std::uint16_t(1000 + q % domains) : no_domain;
    all.push_back({std::uint64_t(q) * 16, 16, domain});
    for (int p = 0; p < 16; ++p) {
      const auto t = Index(rows.token_id.size());
      rows.token_id.push_back(0);
      rows.position.push_back(std::uint32_t(p));
      rows.sequence.push_back(std::uint32_t(q));
      rows.step.push_back(0);
      rows.flags.push_back(0);
      const std::vector<int> ids = choose(int(t), q);
      std::copy(ids.begin(), ids.end(), rows.layer[0].expert.row(t).begin());
    }
  }
  const TraceStep step{0, 0, std::uint32_t(rows.token_id.size()), Phase::eval};
  return MemoryTrace(h, all, {step}, rows);
}

}  // namespace moe
