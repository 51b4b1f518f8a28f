#include "analysis/metric/step_sizes.h"

#include <cmath>

namespace moe {
namespace {

constexpr std::int64_t exact = 32;  // up to here every size is a group of its own
constexpr double width = 1.1;       // of a group beyond

std::int64_t group_of(std::int64_t tokens) {
  if (tokens <= exact)
    return tokens;
  return exact + 1 + std::int64_t(std::log(double(tokens) / exact) / std::log(width));
}

}  // namespace

void StepSizes::add(std::int64_t tokens) {
  Group& g = group_[group_of(tokens)];
  ++g.steps;
  g.tokens += tokens;
  ++steps_;
}

chance::Value StepSizes::mean(const std::function<chance::Value(std::int64_t)>& of) const {
  const auto of_group = [&](const Group& g) {
    return of(std::llround(double(g.tokens) / double(g.steps)));
  };
  if (group_.size() == 1) {  // without the rounding of squares
    const chance::Value v = of_group(group_.begin()->second);
    return {v.mean, v.spread / std::sqrt(double(steps_))};
  }
  chance::Value out{0, 0};
  for (const auto& [size, g] : group_) {
    const chance::Value v = of_group(g);
    const double share = double(g.steps) / double(steps_);
    out.mean += share * v.mean;
    out.spread += share * v.spread * v.spread / double(steps_);
  }
  out.spread = std::sqrt(out.spread);
  return group_.empty() ? chance::Value{} : out;
}

}  // namespace moe
