// The loss of every sequence of a trace, for means whose differences are paired by text.
#pragma once
#include <vector>

#include "analysis/metric/metric.h"

namespace moe {

struct SequenceLosses {
  std::vector<double> nats, tokens;  // a sequence each; tokens: those whose next token is known
  double mean() const;               // over tokens; NaN where there are none
  // [0] the mean, then that of each of `replicas` that weigh sequences Poisson(1), the same for the
  // same `stream`; empty where too few sequences tell
  std::vector<double> replicas(std::uint64_t stream, int replicas) const;
};
// In a pass of its own; nothing where the trace holds no log-probabilities.
SequenceLosses sequence_losses(const TraceSource&, const AnalyzeOptions&);

}  // namespace moe
