// Ranks as threads of one process: the same exchanges without a launcher, so that what several
// ranks compute is tested (and looked at under sanitizers) wherever tests run.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "lib/core/comm.h"

namespace moe {

// What ranks throw where another one has ended them: Error(failed) with this sentence.
inline constexpr const char* ended_by_another_rank = "another rank ended the run";

// One for each rank, each to be used by a thread of its own. An abort makes the exchanges of the
// other ranks throw.
std::vector<std::shared_ptr<Transport>> thread_transports(int ranks);

// Runs `rank` in `ranks` threads and waits for all. Where some throw, the others are ended, and the
// error of the first rank that failed by itself is thrown here. `around` makes another transport of
// each rank's, one that loses time, say.
using Around = std::function<std::shared_ptr<Transport>(std::shared_ptr<Transport>)>;
void as_threads(int ranks, const std::function<void(Comm&)>& rank,
                double patience = Comm::default_patience, const Around& around = {});

}  // namespace moe
