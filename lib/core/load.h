// How evenly assignments spread over experts: every figure of one layer from its counts alone.
// Pure, so training progress lines, metrics.jsonl, reports and tests share one definition. Ids are
// those of docs/metrics.md (load_cv, ...).
#pragma once
#include <cstdint>
#include <span>

namespace moe {

// counts {6, 2, 0, 0} of E = 4 experts, N = 8, mean 2:
struct LoadFigures {
  std::int64_t assignments = 0;  // N = 8
  int experts = 0, dead = 0;     // 4; 2 experts took nothing
  double cv = 0;                 // load_cv: population deviation over mean = sqrt(6)/2 = 1.2247
  double cv_sample = 0;          // load_cv_sample: divisor E-1 = sqrt(8)/2 = 1.4142
  double max_over_mean = 0;      // load_max_over_mean = 6/2 = 3
  double maxvio = 0;             // load_maxvio_global = 3 - 1 = 2
  double avgvio = 0;             // load_avgvio: mean |c/m - 1| = (2+0+1+1)/4 = 1
  double minvio = 0;             // load_minvio: 1 - min/m = 1
  double max_over_min = 0;       // load_max_over_min: inf, because an expert is dead
  double entropy = 0;            // load_entropy = -(3/4 ln 3/4 + 1/4 ln 1/4) = 0.5623 nats
  double entropy_norm = 0;       // load_entropy_norm = 0.5623 / ln 4 = 0.4056; one expert: 1
  double effective = 0;          // load_effective_experts = exp(0.5623)/4 = 0.4387
  double jain = 0;               // load_jain = 64/(4*40) = 0.4
  double gini = 0;               // load_gini = (-3*0 - 1*0 + 1*2 + 3*6)/(4*8) = 0.625
  double dead_fraction = 0;      // load_dead_fraction = 2/4 = 0.5
};

// No assignments at all: every figure but `dead_fraction` (1) is NaN, for there is nothing to
// judge.
LoadFigures load_figures(std::span<const std::int64_t> counts);

// load_topn_coverage: share of the n busiest, n > E counts as E. {6,2,0,0}, n=1: 0.75
double load_topn_coverage(std::span<const std::int64_t> counts, int n);
// capacity_drop_rate: sum max(0, c - C)/N with C = ceil(N/E * factor - 1e-9). {6,2,0,0}, factor 1:
// C = 2, (6-2)/8 = 0.5
double capacity_drop_rate(std::span<const std::int64_t> counts, double factor);
// tile_padding_waste: 1 - N / sum ceil(c/M) M. {6,2,0,0}, M = 4: 1 - 8/12 = 0.3333
double tile_padding_waste(std::span<const std::int64_t> counts, int tile);

}  // namespace moe
