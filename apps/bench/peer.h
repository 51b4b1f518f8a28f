// h5py + numpy counting a trace, for moe bench report: which Python can, and what it says.
#pragma once
#include <filesystem>

#include "apps/bench/bench.h"

namespace moe {

// The first of: `wanted` alone where it is given, else MOE_PYTHON, python3, /usr/bin/python3, that
// imports h5py and numpy; "" where none does. Throws Error(environment) where `wanted` does not.
std::string python_with_h5py(const std::string& wanted);

struct PeerCounts {
  std::vector<std::vector<double>> counts;  // (L)(E)
  Timing wall;
  double processor = 0;  // seconds, least of the runs
};
// Runs tests/peers/report_counts.py, which is compiled in and written to `folder` first.
PeerCounts peer_counts(const std::string& python, const std::filesystem::path& folder,
                       const std::filesystem::path& trace, double budget);

}  // namespace moe
