// What a configuration costs, from its sizes alone (equations.md section 10): sums over the pieces
// of its architecture, and what training holds in memory besides.
#pragma once
#include <cstdint>

#include "lib/core/view.h"

namespace moe {

struct ModelConfig;

struct ModelCost {
  std::int64_t parameters = 0, active_parameters = 0, expert_parameters = 0,
               embedding_parameters = 0;
  double flops_per_token_forward = 0;  // multiply-add = 2; attention at full context included
  // f32; of one training step with T tokens: weights; gradients and both moments of AdamW; what the
  // tape holds between the passes, and one layer's backward on top
  std::int64_t weight_bytes = 0, optimizer_bytes = 0, activation_bytes = 0;
  std::int64_t tape_bytes = 0;  // of activation_bytes: what is there when forward has ended
};
ModelCost cost_of(const ModelConfig&, Index tokens_per_step);

}  // namespace moe
