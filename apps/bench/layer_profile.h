// Where the time of a MoE layer goes: the spans that it records of itself, each without those
// inside it.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace moe {

struct PartTime {
  std::string pass, part;
  double seconds = 0;  // mean of a run
};

struct PassToProfile {
  std::string name;
  std::function<void()> run;
};
// Runs the passes in turn, once to warm up, then at least three times and for about `budget`
// seconds; parts in the order in which they begin. `settle` waits until a device is done.
std::vector<PartTime> parts_of_passes(const std::vector<PassToProfile>&,
                                      const std::function<void()>& settle, double budget);

}  // namespace moe
