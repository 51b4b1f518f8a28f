// What a process of a training holds in memory during a step, from the configuration alone.
#pragma once
#include "lib/model/trainer.h"

namespace moe {

struct ModelConfig;

// In bytes; of several ranks the one that holds most.
struct StepMemory {
  double weights = 0, gradients_and_moments = 0, activations = 0;
  double lanes = 0;         // gradients of lanes that wait for others
  Index micro_batches = 1;  // on the tape at once

  double all() const {
    return weights + gradients_and_moments + activations + lanes;
  }
};
StepMemory step_memory(const ModelConfig&, const TrainOptions&, const RankOptions&, int ranks);

}  // namespace moe
