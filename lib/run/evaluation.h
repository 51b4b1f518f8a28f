// Loss per domain, and exact answers where data ask questions: what `moe eval` reports and
// validation while training writes down.
#pragma once
#include <map>

#include "lib/core/comm.h"
#include "lib/model/decoder.h"
#include "lib/run/eval_batches.h"

namespace moe {

// The answers to one kind of question. Exact: each id of the answer, and its end, was the likeliest
// behind those before it.
struct AnswerCount {
  std::string question;  // the kind, see DatasetInfo::questions
  Index asked = 0, exact = 0;
  std::map<std::vector<int>, Index> right;  // how often each answer was the right one
  double share() const {
    return asked ? double(exact) / double(asked) : 0;
  }
  // The share that the commonest answer is right for: what a guess gets that neither looks at the
  // picture nor listens. Taken from the answers asked for, so never below what chance gives.
  double guess() const;
};

struct DomainLoss {
  std::string name;
  double nats = 0;   // sum over targets
  Index tokens = 0;  // targets
  // the same by sequence, of those that have targets
  std::vector<double> sequence_nats = {};
  std::vector<Index> sequence_tokens = {};
  std::vector<AnswerCount> answers = {};  // of the kinds that were asked
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
