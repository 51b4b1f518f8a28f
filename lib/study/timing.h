// What a round of timing found of one arm.
#pragma once
#include <filesystem>
#include <vector>

namespace moe {

inline constexpr int warm_steps = 2;       // of a round that do not count
inline constexpr double busy_share = 0.1;  // of the cores, used by others: from here on it is said

// Seconds of each training step of a run that logged every step.
std::vector<double> step_seconds(const std::filesystem::path& run);
// Median time of the steps behind the warm ones, and what share of the machine others used
// meanwhile, into FOLDER/timing.json. `cpu_seconds`: of all processes while the round was measured.
void write_timing(const std::filesystem::path& folder, double cpu_seconds);

}  // namespace moe
