#include "analysis/curves/spikes.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

constexpr double normal_deviation = 1.4826;  // of a median distance
constexpr double least_share = 1e-3;         // of the median, for curves without noise

double median(std::vector<double> values) {
  const std::size_t middle = values.size() / 2;
  std::ranges::sort(values);
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace

std::vector<std::int64_t> loss_spikes(const TrainingLog& log, double deviations) {
  std::vector<const LogPoint*> losses;
  for (const LogPoint& p : log.points) {
    if (p.figure == "loss" && std::isfinite(p.value))
      losses.push_back(&p);
  }
  std::vector<std::int64_t> out;
  bool within = false;  // the step before stood out
  for (std::size_t i = spike_window; i < losses.size(); ++i) {
    std::vector<double> before;
    for (std::size_t j = i - spike_window; j < i; ++j)
      before.push_back(losses[j]->value);
    const double middle = median(before);
    std::vector<double> distance;
    for (const double v : before)
      distance.push_back(std::abs(v - middle));
    const double spread =
        std::max(normal_deviation * median(distance), least_share * std::abs(middle));
    const bool stands_out = losses[i]->value > middle + deviations * spread;
    if (stands_out && !within)
      out.push_back(losses[i]->step);
    within = stands_out;
  }
  return out;
}

}  // namespace moe
