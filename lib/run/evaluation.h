// Loss per domain: what `moe eval` reports and validation while training writes down.
#pragma once
#include "lib/core/comm.h"
#include "lib/model/decoder.h"
#include "lib/run/eval_batches.h"

namespace moe {

struct DomainLoss {
  std::string name;
  double nats = 0;   // sum over targets
  Index tokens = 0;  // targets
  // the same by sequence, of those that have targets
  std::vector<double> sequence_nats = {};
  std::vector<Index> sequence_tokens = {};
  double loss() const {
    return tokens ? nats / double(tokens) : 0;
  }
};

// Runs the corpus through the model without gradients; of several ranks each takes every so many-th
// batch, and all get the result, which is that of one rank. `visited` hears of every batch
// (progress) and may stop; `routed` of what each MoE layer decided and computed for a batch. Throws
// Error(numeric) naming the domain whose loss is not finite.
std::vector<DomainLoss> evaluate(
    Decoder<float>&, const Corpus&, const EvalBatches&,
    const std::function<bool(Index tokens)>& visited = {},
    const std::function<void(int moe_layer, const Batch&, const MoeTape<float>&)>& routed = {});
std::vector<DomainLoss> evaluate(Decoder<float>&, const Corpus&, const EvalBatches&, Comm&,
                                 const std::function<bool(Index tokens)>& visited = {});
// The sequence length that was asked for, or the context where none (0) was. Throws Error(usage)
// where it is longer than the context.
int length_for(int asked, const ModelConfig&);
double mean_loss(const std::vector<DomainLoss>&);  // over domains, equal weight
// Sequences are what is independent in a text: of fewer, no interval of a difference is given.
inline constexpr std::size_t least_sequences = 8;

// The same specs with split=valid, for validation of a run that trains on them.
std::vector<std::string> validation_specs(const std::vector<std::string>& specs);

}  // namespace moe
