#include "apps/walk.h"

#include <algorithm>

namespace moe {
namespace {

constexpr Index train_sample = 100'000;

Index share_of(const Corpus& corpus, const WalkOptions& o, std::size_t domain) {
  const Index there = corpus.info().valid_tokens[domain];
  return o.tokens > 0 ? std::min(there, o.tokens / Index(corpus.info().domains.size())) : there;
}

}  // namespace

Index walk_size(const Corpus& corpus, const WalkOptions& o) {
  if (corpus.split() == Split::train)
    return o.tokens > 0 ? o.tokens : train_sample;
  Index all = 0;
  for (std::size_t d = 0; d < corpus.info().domains.size(); ++d) {  // whole sequences
    const Index there = corpus.info().valid_tokens[d];
    const Index pieces = (share_of(corpus, o, d) + o.length - 1) / o.length;
    all += std::min(there, pieces * o.length);
  }
  return all;
}

void walk(const Corpus& corpus, const WalkOptions& o,
          const std::function<bool(const Batch&)>& visit) {
  if (corpus.split() == Split::train) {
    const Index wanted = walk_size(corpus, o);
    std::uint64_t number = 0;
    for (Index seen = 0; seen < wanted;) {
      const Batch batch = corpus.train(
          number++, int(std::min<Index>(o.sequences, (wanted - seen + o.length - 1) / o.length)),
          o.length);
      seen += batch.tokens();
      if (!visit(batch))
        return;
    }
    return;
  }
  for (std::size_t d = 0; d < corpus.info().domains.size(); ++d) {
    const Index wanted = share_of(corpus, o, d);
    for (Index seen = 0, piece = 0; seen < wanted;) {
      const int pieces =
          int(std::min<Index>(o.sequences, (wanted - seen + o.length - 1) / o.length));
      const auto batch = corpus.valid(int(d), piece, pieces, o.length);
      if (!batch)
        break;
      seen += batch->tokens();
      piece += batch->sequences();
      if (!visit(*batch))
        return;
    }
  }
}

}  // namespace moe
