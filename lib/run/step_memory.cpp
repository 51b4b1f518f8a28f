#include "lib/run/step_memory.h"

#include <algorithm>
#include <bit>

#include "lib/model/config.h"
#include "lib/model/cost.h"
#include "lib/run/router_warnings.h"

namespace moe {

StepMemory step_memory(const ModelConfig& config, const TrainOptions& o, const RankOptions&,
                       int ranks) {
  const ModelCost c = cost_of(config, o.sequences * o.length);
  const double gradient = double(c.parameters) * sizeof(float);
  const Index lanes = std::max<Index>(1, (o.lanes + ranks - 1) / ranks);  // of one rank
  const bool abreast = counts_whole_step(config) && o.accumulate > 1;
  StepMemory out{.weights = double(c.weight_bytes),
                 .gradients_and_moments = double(c.optimizer_bytes),
                 .activations = double(c.activation_bytes)};
  // lib/model/lanes.h: sums of lanes wait for their other halves
  out.lanes = double(std::bit_width(std::uint64_t(lanes)) - 1) * gradient;
  if (!abreast)
    return out;
  out.micro_batches = lanes;
  out.activations += double(lanes - 1) * double(c.tape_bytes);
  if (o.accumulate > o.lanes && o.lanes > 1)  // and each lane has its own between its turns
    out.lanes = std::max(out.lanes, double(lanes) * gradient);
  return out;
}

}  // namespace moe
