// A training run as a person sees it: the run folder, progress, metrics.jsonl, validation,
// checkpoints, signals, the trace recorded on the way. The arithmetic of a step is
// lib/model/trainer.h.
#pragma once
#include "apps/output.h"
#include "lib/run/run_folder.h"

namespace moe {

struct RunOptions {
  std::vector<std::string> data, parts;  // parts: what trains; empty = all
  std::string tokenizer = "bytes", folder, trace,
              init /*checkpoint whose weights a new run starts from*/, options = "{}";
  TrainOptions train;
  Index length = 0;  // 0 = the model's context
  Index save_every = 500, keep = 2, eval_every = 500, eval_tokens = 65536, log_every = 10,
        trace_every = 1;
  // f32 or bf16: weights alone are written, for steps = 0; empty = a checkpoint that can be resumed
  std::string save_dtype;
  DeviceOptions device;
  bool force = false;
};

RunState state_of(const ModelConfig&, const RunOptions&);  // throws Error(usage) for what cannot be
int start_run(const ModelConfig&, const RunOptions&);
// the weights of step 0 alone; new experts are drawn as they are written
int write_initial(const ModelConfig&, const RunOptions&);
int resume_run(const std::string& folder, Index horizon /*-1: as saved*/, const DeviceOptions&);
int dry_run(const ModelConfig&, const RunOptions&);

}  // namespace moe
