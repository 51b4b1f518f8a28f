// Which layout of training is fastest on a cluster, among those that fit its memory, and what a
// step would gain from a better machine.
#pragma once
#include <string>
#include <vector>

#include "lib/plan/fit.h"

namespace moe::plan {

struct Candidate {
  Layout layout;
  StepParts parts;
  TrainingMemory memory;
  double tokens = 0;  // a second and device
};
// The candidate of one layout, which must be resolved().
Candidate candidate_of(const Architecture&, const Cluster&, const Layout&, const StepOptions&,
                       const Terms& factors);

struct SearchResult {
  std::vector<Candidate> best;  // the fastest first
  std::size_t tried = 0, fitting = 0;
};
// Every ep, pp, tp, vp, micro-batch and recomputation that divides cluster, model and `base.gbs`
// (0: 16 sequences a device); bits, sequence, limit_nodes and the like are those of `base`. usable:
// share of a device's memory that may be taken.
SearchResult search_layouts(const Architecture&, const Cluster&, const Layout& base,
                            const StepOptions&, const Terms& factors, double usable,
                            std::size_t most);

struct Gain {
  std::string what;
  double percent = 0;  // more tokens a second
};
// Of a tenth more of each thing that a cluster has.
std::vector<Gain> sensitivity(const Candidate&, const Terms& factors);

// Load of the busiest of `ranks` over the mean under DeepSeek's balancer (lib/serving/eplb.h)
// with `extra` slots of a layer beyond one an expert, mean over the layers of a law.
double balanced_imbalance(const ChoiceLaw&, Count ranks, Count extra);

}  // namespace moe::plan
