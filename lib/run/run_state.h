// state.json of a checkpoint: everything that continues a run, beside weights and moments. A run
// may come from elsewhere, so that what a state says is held to what the command line may say.
#pragma once
#include <filesystem>

#include "lib/core/error.h"
#include "lib/files/json.h"
#include "lib/model/trainer.h"

namespace moe {

struct RunState {
  Index step = 0;
  // hash of the weights that this training began with, and those of the trainings before it
  // (lib/run/origin.h); empty: not known
  std::string run_id;
  std::vector<std::string> lineage;
  TrainOptions train;                               // horizon, batch, learning rate, seed, ...
  std::string model;                                // to_spec() of the configuration
  std::vector<std::string> data;                    // resolved --data specs
  std::string tokenizer = "bytes", device = "cpu";  // tokenizer: a kept_name()
  std::string options = "{}";                       // the command's resolved options, JSON
  std::string trace;                                // file being recorded, or empty
  Index trace_every = 1;
  bool trace_ranks = false;      // its rows say which rank computed them
  std::uint64_t trace_rows = 0;  // rows of it that belong to this state
  Index save_every = 0, keep = 2, eval_every = 0, log_every = 10, eval_tokens = 0;
  double save_minutes = 0;  // a checkpoint after so many minutes without one, too; 0 = none
  std::vector<std::vector<std::int64_t>> steps_with_gradient;  // (moe layers)(E)
};

Json state_json(const RunState&);

// Throws Error(code) for numbers that no run can have; `where` begins the sentence
// ("'.../state.json':
// ", or nothing of a command line).
void refuse_impossible(const RunState&, Exit code, const std::string& where);

// Of FOLDER/state.json. Throws Error(input).
RunState read_state(const std::filesystem::path& folder);

}  // namespace moe
