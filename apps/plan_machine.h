// What moe plan says of machines: the options of one kind of device and of clusters, and the report
// of whichever was asked for.
#pragma once
#include <string>
#include <vector>

#include "analysis/table.h"
#include "apps/command_line.h"
#include "lib/plan/storage.h"

namespace moe {

inline constexpr const char* own_format = "own";  // of --weights: as the file has them

struct NamedModel {
  std::string word;  // as it was asked for
  Architecture shape;
  plan::Storage weights;
};

struct MachineOptions {
  std::string device, routing = "even", offload;
  std::string cluster, curve;
  std::vector<std::string> layouts;
  bool search = false, published = false;
  std::string simulate;  // a trace
  Count rebalance = 0, grow = 0;
  bool here = false;
  Count eplb = -1;  // slots beyond one an expert; -1 = experts in order
  int cache_bits = 16;
  Count devices = 0, chunk = 2048;
  std::int64_t trace_tokens = 200'000;
  double usable = 0.9;
};
void add_machine(CommandLine&, MachineOptions&);
bool wanted(const MachineOptions&);  // whether any machine was named
// Throws Error(usage) for more than one model.
Report machine_report(const std::vector<NamedModel>&, const MachineOptions&, Count context);

}  // namespace moe
