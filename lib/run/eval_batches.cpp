#include "lib/run/eval_batches.h"

#include <algorithm>

namespace moe {
namespace {

constexpr Index train_sample = 100'000;

using Visit = std::function<bool(const Batch&)>;

// Tokens of one domain that are wanted.
Index share_of(const Corpus& corpus, const EvalBatches& o, std::size_t domain) {
  const Index all = corpus.info().valid_tokens[domain];
  return o.tokens > 0 ? std::min(all, o.tokens / Index(corpus.info().domains.size())) : all;
}

// Whole sequences that hold `tokens`, at most one batch of them.
int sequences_for(Index tokens, const EvalBatches& o) {
  return int(std::min<Index>(o.sequences, (tokens + o.length - 1) / o.length));
}

void for_each_training_batch(const Corpus& corpus, const EvalBatches& o, const Visit& visit) {
  const Index wanted = token_count(corpus, o);
  std::uint64_t number = 0;
  for (Index seen = 0; seen < wanted;) {
    const Batch batch = corpus.train(number++, sequences_for(wanted - seen, o), o.length);
    seen += batch.tokens();
    if (!visit(batch))
      return;
  }
}

// False where `visit` stopped it.
bool for_each_batch_of(const Corpus& corpus, int domain, const EvalBatches& o, const Visit& visit) {
  const Index wanted = share_of(corpus, o, std::size_t(domain));
  Index piece = 0;
  for (Index seen = 0; seen < wanted;) {
    const auto batch = corpus.valid(domain, piece, sequences_for(wanted - seen, o), o.length);
    if (!batch)
      return true;
    seen += batch->tokens();
    piece += batch->sequences();
    if (!visit(*batch))
      return false;
  }
  return true;
}

}  // namespace

Index token_count(const Corpus& corpus, const EvalBatches& o) {
  if (corpus.split() == Split::train)
    return o.tokens > 0 ? o.tokens : train_sample;
  Index all = 0;
  for (std::size_t d = 0; d < corpus.info().domains.size(); ++d) {  // whole sequences
    const Index pieces = (share_of(corpus, o, d) + o.length - 1) / o.length;
    all += std::min(corpus.info().valid_tokens[d], pieces * o.length);
  }
  return all;
}

void for_each_batch(const Corpus& corpus, const EvalBatches& o, const Visit& visit) {
  if (corpus.split() == Split::train)
    return for_each_training_batch(corpus, o, visit);
  for (int d = 0; d < int(corpus.info().domains.size()); ++d) {
    if (!for_each_batch_of(corpus, d, o, visit))
      return;
  }
}

}  // namespace moe
