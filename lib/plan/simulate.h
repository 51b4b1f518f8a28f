// A trace's routing played through a cluster that serves: step by step, each MoE layer waits for
// its slowest expert rank and for its exchange, experts lie in order or where DeepSeek's balancer
// puts them, anew every so many steps. Forward passes; rates are those of the data sheet times the
// factors of lib/plan/fit.h, launching is that of graphs.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "lib/plan/cluster.h"
#include "lib/plan/storage.h"

namespace moe::plan {

struct Simulation {
  const Architecture& model;
  Cluster cluster;  // all its devices are ranks of expert parallelism
  Storage weights;
  Count context = 4096;           // that attention looks back on
  Count extra = 0;                // slots of a layer beyond one an expert
  Count rebalance = 0;            // steps between two placements; 0 = experts in order for ever
  std::uint64_t most_tokens = 0;  // 0 = all
};

struct SimulatedStep {
  double tokens = 0, seconds = 0;
  double ideal_s = 0;     // if every rank had the mean load
  double exchange_s = 0;  // of seconds
  double moved_s = 0;     // of seconds: experts sent to new places before it
  double imbalance = 1;   // busiest rank over the mean, mean over layers
};

// A step of the trace each; where it has none, 4,096 tokens. Throws Error(input) where trace and
// model do not have the same experts and choices, Error(usage) where experts do not divide.
std::vector<SimulatedStep> simulate(const std::filesystem::path& trace, const Simulation&,
                                    const std::function<void(std::uint64_t rows)>& progress = {});

}  // namespace moe::plan
