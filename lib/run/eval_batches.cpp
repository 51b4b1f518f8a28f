#include "lib/run/eval_batches.h"

#include <algorithm>
#include <numeric>

#include "lib/core/error.h"

namespace moe {
namespace {

constexpr Index train_sample = 100'000;

using Visit = std::function<bool(const Batch&, Rng&)>;
using Numbers = std::vector<PieceNumber>;

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
    const Batch batch = corpus.train(number, sequences_for(wanted - seen, o), o.length);
    seen += batch.tokens();
    Rng rng = Rng(o.seed).stream(number++);
    if (!visit(batch, rng))
      return;
  }
}

// Pieces of a domain that have their own lengths; -1 = its text is cut into pieces of any.
Index pieces_of(const Corpus& corpus, std::size_t domain) {
  const auto& all = corpus.info().valid_pieces;
  return all.empty() ? -1 : all[domain];
}

// Sequences of each domain.
std::vector<Index> sequence_counts(const Corpus& corpus, const EvalBatches& o) {
  std::vector<Index> counts;
  for (std::size_t d = 0; d < corpus.info().domains.size(); ++d) {
    const Index share = share_of(corpus, o, d);
    const Index pieces = pieces_of(corpus, d);
    const Index all = std::max<Index>(1, corpus.info().valid_tokens[d]);
    counts.push_back(pieces < 0 ? (share + o.length - 1) / o.length
                                : (share * pieces + all - 1) / all);
  }
  return counts;
}

// The pieces of each batch. Batches of SequenceOrder::domain hold one domain.
std::vector<Numbers> mixed_batches(const std::vector<Index>& counts, std::size_t sequences) {
  std::vector<Index> next(counts.size());
  std::vector<Numbers> batches;
  for (const int domain : interleaved(counts)) {
    if (batches.empty() || batches.back().size() == sequences)
      batches.emplace_back();
    batches.back().push_back({domain, next[std::size_t(domain)]++});
  }
  return batches;
}
std::vector<Numbers> batches_by_domain(const std::vector<Index>& counts, std::size_t sequences) {
  std::vector<Numbers> batches;
  for (std::size_t d = 0; d < counts.size(); ++d) {
    for (Index piece = 0; piece < counts[d]; ++piece) {
      if (piece % Index(sequences) == 0)
        batches.emplace_back();
      batches.back().push_back({int(d), piece});
    }
  }
  return batches;
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
  if (corpus.split() == Split::train && o.order == SequenceOrder::domain) {
    throw Error(Exit::usage,
                "training batches draw the domains in turn: they have no order of domains")
        .hint("leave --order out, or split=valid");
  }
  if (corpus.split() == Split::train)
    return for_each_training_batch(corpus, o, visit);
  const std::vector<Index> counts = sequence_counts(corpus, o);
  const std::size_t sequences(o.sequences);
  const std::vector<Numbers> batches = o.order == SequenceOrder::mixed
                                           ? mixed_batches(counts, sequences)
                                           : batches_by_domain(counts, sequences);
  for (std::size_t n = 0; n < batches.size(); ++n) {
    const Batch batch = corpus.valid(batches[n], o.length);
    if (batch.sequences() == 0)
      continue;
    Rng rng = Rng(o.seed).stream(n);
    if (!visit(batch, rng))
      return;
  }
}

std::vector<int> interleaved(const std::vector<Index>& counts) {
  const Index all = std::accumulate(counts.begin(), counts.end(), Index(0));
  const Index domains = std::ranges::count_if(counts, [](Index n) { return n > 0; });
  const Index steps = std::max<Index>(2 * domains - 2, 1);  // of one sequence
  std::vector<Index> taken(counts.size());
  // the latest place of its next sequence, in steps, times its share
  const auto deadline = [&](std::size_t d) {
    return (taken[d] + 1) * steps - 1;
  };
  std::vector<int> order;
  for (Index place = 1; place <= all; ++place) {
    std::size_t first = counts.size();
    for (std::size_t d = 0; d < counts.size(); ++d) {
      const bool too_early = (counts[d] * place - taken[d] * all) * steps < all;
      if (taken[d] >= counts[d] || too_early)
        continue;
      if (first == counts.size() || deadline(d) * counts[first] < deadline(first) * counts[d])
        first = d;
    }
    ++taken[first];
    order.push_back(int(first));
  }
  return order;
}

}  // namespace moe
