// Replicating and placing experts by their load: DeepSeek's expert-parallel load balancer, as its
// published code decides, ties to the lower index. What a placement would have done to loads that
// were measured.
#pragma once
#include "lib/core/matrix.h"

namespace moe {

struct EplbShape {
  // replicas: physical experts in all; groups not divisible by nodes: both count as 1
  int replicas = 0, groups = 1, nodes = 1, gpus = 1;
};

struct EplbPlan {
  // (R) logical expert of each physical slot; slot = gpu * R/P + place
  std::vector<int> expert;
  std::vector<int> copies;       // (E) replicas of each expert
  std::vector<double> gpu_load;  // (P) with every expert's load split evenly among its copies
  double balancedness = 0;       // mean over largest GPU load; no load at all: NaN
};

// weight (E) of one layer. {90,132,40,61,104,165,39,4,73,56,183,86} with 16 replicas, 4 groups, 2
// nodes, 8 GPUs: 5,6,5,7,8,4,3,4,10,9,10,2,0,1,11,1. Throws Error(usage) where the numbers do not
// divide or there are fewer slots than experts.
EplbPlan eplb_plan(std::span<const double> weight, const EplbShape&);

// The plan's balancedness under other loads (of later tokens, say).
double eplb_balancedness(const EplbPlan&, std::span<const double> weight, int gpus);

}  // namespace moe
