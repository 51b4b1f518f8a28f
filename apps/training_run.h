// Training as a person at a terminal sees it: progress, notes, Ctrl-C. The run itself is
// lib/run/training.h.
#pragma once
#include "apps/output.h"
#include "lib/run/start_run.h"

namespace moe {

// Each returns the exit code: 0, or 128 + the signal that stopped the run.
int start_run(const ModelConfig&, const RunOptions&, const DeviceOptions&, const RankOptions&,
              const ProfileOptions&);
int resume_run(const std::string& folder, const ResumeOptions&, const DeviceOptions&,
               const RankOptions&, const ProfileOptions&);
// the weights of step 0 alone; save_dtype: f32 or bf16
int write_initial(const ModelConfig&, const RunOptions&, const std::string& save_dtype,
                  const DeviceOptions&);
int dry_run(const ModelConfig&, const RunOptions&, const RankOptions&, int ranks);

}  // namespace moe
