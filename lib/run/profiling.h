// What of a run's time is looked at: the split of each logged step, and a few steps as a trace file
// that Chrome (chrome://tracing) and Perfetto (ui.perfetto.dev) open. No byte of the run depends on
// it, and it is no part of its state: a run that goes on is asked again.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "lib/core/profile.h"
#include "lib/core/view.h"

namespace moe {

struct ProfileOptions {
  bool split = false;  // time by part in the lines of metrics.jsonl
  std::string trace;   // a file for the spans of steps first .. last; empty = none
  // 1-based; 0 = three steps, without the first one of this process where there are others
  Index first = 0, last = 0;
  bool force = false;  // replace a file that exists

  bool wanted() const {
    return split || !trace.empty();
  }
};

// The steps to record, of a run that has made `done` of `horizon`. Throws Error(usage) for steps
// that are made already or never will be, and as refuse_existing().
ProfileOptions settled(ProfileOptions, Index done, Index horizon,
                       const std::filesystem::path& folder);

// Events as JSON: an object with "traceEvents", complete events ("ph": "X", microseconds), one
// track a thread, names of tracks first. `rank`: the process of the tracks.
std::string chrome_trace(const std::vector<Profile::Event>&, int rank);

}  // namespace moe
