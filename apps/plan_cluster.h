// The tables of moe plan --cluster: a step in its terms, memory of a rank, layouts side by side or
// found, and the published runs that predictions are held to.
#pragma once
#include <string>
#include <vector>

#include "analysis/table.h"
#include "lib/plan/search.h"

namespace moe {

struct ClusterRequest {
  const Architecture& model;
  plan::Cluster cluster;
  std::vector<plan::Layout> layouts;  // as asked for, unresolved; the first is the base of a search
  bool search = false;
  double usable = 0.9;
  plan::StepOptions options;
  std::string routing;          // for people
  bool own_efficiency = false;  // a curve was given: products have no fitted factor
};
Report cluster_report(const ClusterRequest&);

// Published runs and exchanges beside predictions of fits that have not seen them.
Report published_runs_report();

}  // namespace moe
