// What a process of a training holds in memory during a step, from the configuration alone.
#pragma once
#include "lib/model/trainer.h"

namespace moe {

struct ModelConfig;

// In bytes; of several ranks the one that holds most.
struct StepMemory {
  double weights = 0, gradients = 0, moments = 0, activations = 0;
  double lanes = 0;  // gradients of lanes that wait for others, and of rows from other ranks
  double passing =
      0;  // of ranks with shards: what one layer needs besides, for as long as it computes
  Index micro_batches = 1;  // on the tape at once

  double all() const {
    return weights + gradients + moments + activations + lanes + passing;
  }
};
StepMemory step_memory(const ModelConfig&, const TrainOptions&, const RankOptions&, int ranks);

}  // namespace moe
