// What a run that was killed may leave in its folder beside what it is meant to hold.
#pragma once
#include <filesystem>

namespace moe {

// The lock, or a file of ours that was being written: a start that was killed within its first
// milliseconds leaves no more.
bool is_leftover(const std::filesystem::path&);

// Removes files that were being written and checkpoints without an end. Hold the run's lock.
void clear_leftovers(const std::filesystem::path& folder);

}  // namespace moe
