// What a resumed run does about the trace that it was being recorded into. The checkpoint names the
// rows that belong to it; where the file holds fewer (a power cut, a file that was removed), an
// older checkpoint may still agree with it, and else a new trace begins.
#pragma once
#include "lib/run/run_state.h"

namespace moe {

struct ResumePoint {
  std::filesystem::path checkpoint;
  RunState state;
  // the trace begins anew with the first step that is made; else it goes on at state.trace_rows
  bool new_trace = false;
  std::vector<std::string> said;  // sentences on what became of the trace
};

// The checkpoint to go on from: the given one where its trace agrees. `asked`: empty = the trace
// that the state names, "none" = no trace any more, or a file to record into from here on. A file
// whose rows are too few and that no checkpoint agrees with is kept under another name. Throws
// Error(input) where a file outside the run folder would be written because the state of another
// machine says so, or where the trace is another run's.
ResumePoint resume_point(const std::filesystem::path& run, ResumePoint newest,
                         const std::string& asked);

// Whether a file lies in a folder.
bool lies_in(const std::filesystem::path& file, const std::filesystem::path& folder);

}  // namespace moe
