// Loss spikes, by a definition that does not depend on the level or the slope of a curve.
#pragma once
#include <cstdint>
#include <vector>

#include "analysis/curves/training_log.h"

namespace moe {

inline constexpr int spike_window = 20;        // logged steps before the one that is judged
inline constexpr double spike_deviations = 6;  // of a normal distribution
// Logged steps whose training loss lies more than `deviations` above the median of the 20 logged
// before it, a deviation being 1.4826 times the median distance of those from their median (of a
// normal distribution: its standard deviation), and at least a thousandth of the median. Steps
// before the 20th are not judged; of steps in a row that stand out one spike is counted.
std::vector<std::int64_t> loss_spikes(const TrainingLog&, double deviations = spike_deviations);

}  // namespace moe
