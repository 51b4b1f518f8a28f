// A run from nothing, from another checkpoint's weights, or from where it stopped: everything that
// cannot be is refused before a file is written or a device is opened.
#pragma once
#include <functional>

#include "lib/run/training.h"

namespace moe {

struct RunOptions {
  std::vector<std::string> data;  // specs of datasets
  // tokenizer_for_run(); not asked where the run starts from a checkpoint, which has its own
  std::string tokenizer = "bytes";
  std::string folder;
  std::string trace;           // file to record routing into; empty = none
  std::string init;            // checkpoint whose weights a new run starts from; empty = drawn ones
  std::string options = "{}";  // the command's resolved options, JSON
  std::string device = "cpu";  // its spec, as the state remembers it
  TrainOptions train;
  Index length = 0;  // tokens of a sequence; 0 = the model's context
  Index save_every = 500, keep = 2;
  double save_minutes = 10;
  Index eval_every = 500, eval_tokens = 65536;
  Index log_every = 10, trace_every = 1;
  bool trace_ranks = false;  // record which rank computed a token
  bool force = false;        // replace a run and a trace that exist
};

// What the program brings to a run.
struct RunContext {
  // Opens a device by its spec, once all has been checked that needs none. It outlives the run.
  std::function<Backend<float>&(const std::string& spec)> device;
  Provenance provenance;
  // Its ranks, which outlive the run; null = one. All call what follows with the same options, and
  // rank 0 alone looks at folders that are written, and writes.
  Comm* comm = nullptr;
  RankOptions ranks;
  ProfileOptions profile;  // of this process alone
  int ranks_here = 1;      // on this host, whose memory they share

  bool writes() const {
    return !comm || comm->first();
  }
  int size() const {
    return comm ? comm->size() : 1;
  }
};

int experts_of(const ModelConfig&);  // of each MoE layer; 0 where there is none

// What of this process is profiled, settled(), on rank 0; the observer hears where it is one of
// several.
ProfileOptions profile_of(const RunContext&, Index done, Index horizon,
                          const std::filesystem::path& folder, TrainingObserver&);

// The state at step 0. Throws Error(usage) for what cannot be.
RunState state_of(const ModelConfig&, const RunOptions&);

// Throws Error(memory): a size that this machine cannot hold is said at once, not after minutes of
// swapping. `few_bits`: as step_memory() has it.
void refuse_size(const ModelConfig&, const TrainOptions&, const RunContext&, double few_bits);

// The model of a new run on its data, which are opened as the run opens them, and the same
// refusals: its vocabulary and signals; of a tokenizer that has yet to be trained the ids that it
// will have.
ModelConfig config_on_data(const ModelConfig&, const RunOptions&, TrainingObserver&);

// A new run: checked, its folder made and locked, its model drawn. The model's vocabulary and
// signals are those of the data.
std::unique_ptr<TrainingRun> start_run(const ModelConfig&, const RunOptions&, const RunContext&,
                                       TrainingObserver&);

struct ResumeOptions {
  Index horizon = -1;  // steps in all; -1: as saved
  std::string device;  // empty: the one that the run was on
  // a file to record into from here on, or none; empty: as saved
  std::string trace;
  bool accept_changed_data = false;     // go on with other data than the run began with
  bool accept_changed_version = false;  // and with another version of the program
};

// The newest valid checkpoint of a run, to go on from; null where the run is done and its trace
// complete (the observer gets a note). Where the trace lacks rows that the checkpoint names, the
// newest one that it agrees with, or a new trace (lib/run/resumed_trace.h). Throws Error(input) for
// what is not a run, and where the data, or the version of the program, are not those that the run
// began with. Defined in resume_run.cpp.
std::unique_ptr<TrainingRun> resume_run(const std::string& folder, const ResumeOptions&,
                                        const RunContext&, TrainingObserver&);

// The weights of step 0 alone, as a run that can be used but not resumed; new experts are drawn as
// they are written.
struct InitialWeights {
  std::filesystem::path checkpoint;
  std::int64_t parameters = 0;
};
InitialWeights write_initial(const ModelConfig&, const RunOptions&, DType weights,
                             const RunContext&);

}  // namespace moe
