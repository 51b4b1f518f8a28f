// Where the copies of experts lie on GPUs and nodes: plans by several policies, and what a plan
// does to loads and to traffic that it was not made from. Slots are numbered GPU by GPU, GPUs node
// by node, as engines number physical experts.
#pragma once
#include <string>
#include <vector>

#include "lib/core/matrix.h"
#include "lib/core/registry.h"

namespace moe {

struct PlaceShape {
  // gpus: ranks of expert parallelism; extra: slots beyond one an expert; groups: of the router,
  // for eplb, which keeps a group on one node where groups divide among nodes
  int gpus = 1, nodes = 1, extra = 0, groups = 1;

  int slots(int experts) const {
    return experts + extra;
  }
  int node_of(int gpu) const {
    return gpu / (gpus / nodes);
  }
};

struct PlacePlan {
  std::vector<int> expert, gpu;  // (R) of each slot
  std::vector<int> copies;       // (E) slots of each expert
};

// What a plan is made from.
struct PlaceLoads {
  std::vector<double> load;  // (E) choices
  Matrix<double> together;   // (E,E) tokens that chose both; empty where no policy asks for it
};

// Throws Error(usage) in one sentence where slots do not divide among GPUs, GPUs among nodes, or
// experts among groups, or where there are more slots than copies make sense.
void check_place(int experts, const PlaceShape&);

using MakePlacePlan = PlacePlan(const PlaceLoads&, const PlaceShape&);
// PLACE_POLICY lines of place_policies.def. Every plan has E + extra slots, as many on each GPU,
// and each expert at least once; the same loads give the same plan.
const Registry<MakePlacePlan>& place_policies();
// Whether a policy looks at PlaceLoads::together.
bool wants_together(std::string_view policy);

// Without a plan: expert e on GPU e P / E, once.
PlacePlan place_in_order(int experts, int gpus);

// Mean over largest load of the GPUs, each expert's load split evenly among its copies; no load at
// all: NaN.
double place_balancedness(const PlacePlan&, std::span<const double> load, int gpus);

// (N,E) the node that computes expert e for tokens of node s: s where it has a copy, else the
// copies in turn, copy s mod copies.
Matrix<int> place_targets(const PlacePlan&, const PlaceShape&);

}  // namespace moe
