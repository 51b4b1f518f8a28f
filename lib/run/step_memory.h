// What a process of a training holds in memory during a step, from the configuration alone.
#pragma once
#include "lib/model/trainer.h"

namespace moe {

struct ModelConfig;

// In bytes; of several ranks the one that holds most. Gradients and moments are those of what
// trains.
struct StepMemory {
  double weights = 0, gradients = 0, moments = 0, activations = 0;
  double lanes = 0;  // gradients of lanes that wait for others, and of rows from other ranks
  double passing =
      0;  // of ranks with shards: what one layer needs besides, for as long as it computes
  // of the file that experts in few bits lie in: pages that the system can drop at any time
  double mapped = 0;
  Index micro_batches = 1;  // on the tape at once

  double all() const {  // without `mapped`
    return weights + gradients + moments + activations + lanes + passing;
  }
};
// few_bits: bytes of experts that stay in few bits in their file; 0 = they are in memory.
StepMemory step_memory(const ModelConfig&, const TrainOptions&, const RankOptions&, int ranks,
                       double few_bits = 0);

}  // namespace moe
