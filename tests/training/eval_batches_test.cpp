// What a trace sees of a corpus of several domains: every stretch of sequences has the shares of
// the whole, the same pieces in any order, and numbers that depend on the batch alone.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lib/run/eval_batches.h"

using namespace moe;

namespace {

// The largest distance of a domain's count from its share, over all prefixes and all stretches.
struct Unevenness {
  double prefix = 0, stretch = 0;
};
Unevenness unevenness(const std::vector<Index>& counts) {
  const std::vector<int> order = interleaved(counts);
  double all = 0;
  for (const Index n : counts)
    all += double(n);
  REQUIRE(double(order.size()) == all);
  Unevenness worst;
  for (std::size_t d = 0; d < counts.size(); ++d) {
    CHECK(std::ranges::count(order, int(d)) == counts[d]);
    double ahead = 0;
    double least = 0;
    double most = 0;
    for (const int domain : order) {
      ahead += double(domain == int(d)) - double(counts[d]) / all;
      worst.prefix = std::max(worst.prefix, std::abs(ahead));
      least = std::min(least, ahead);
      most = std::max(most, ahead);
    }
    worst.stretch = std::max(worst.stretch, most - least);
  }
  return worst;
}

using Sequence = std::pair<int, std::vector<int>>;  // domain, ids

struct Seen {
  std::vector<Sequence> sequences;
  std::vector<std::uint64_t> drawn;  // the first number of each batch
};
Seen seen(const Corpus& corpus, const EvalBatches& o) {
  Seen out;
  for_each_batch(corpus, o, [&](const Batch& batch, Rng& rng) {
    out.drawn.push_back(rng.next());
    for (Index q = 0; q < batch.sequences(); ++q) {
      out.sequences.push_back({batch.domain[std::size_t(q)],
                               {batch.token.begin() + batch.start[std::size_t(q)],
                                batch.token.begin() + batch.start[std::size_t(q) + 1]}});
    }
    return true;
  });
  return out;
}

const std::vector<std::string> three_domains = {"clusters:clusters=4,vocabulary=64,split=valid",
                                                "clusters:clusters=8,vocabulary=64,split=valid",
                                                "zipf:vocabulary=64,split=valid"};

}  // namespace

TEST_CASE("interleaved domains keep their shares in every stretch") {
  for (const std::vector<Index>& counts : std::vector<std::vector<Index>>{{1},
                                                                          {5, 5},
                                                                          {100, 1},
                                                                          {37, 11},
                                                                          {8, 8, 8, 8},
                                                                          {1, 0, 3},
                                                                          {50, 30, 20},
                                                                          {97, 2, 1, 13}}) {
    CAPTURE(counts);
    const double domains = double(std::ranges::count_if(counts, [](Index n) { return n > 0; }));
    const Unevenness worst = unevenness(counts);
    CHECK(worst.prefix <= 1 - 1 / std::max(1.0, 2 * domains - 2) + 1e-9);
    CHECK(worst.stretch < 2);
    if (domains == 2)
      CHECK(worst.stretch <= 1 + 1e-9);
  }
}

TEST_CASE("mixed and domain order have the same sequences, mixed in every stretch") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus(three_domains, *tokenizer, 1);
  EvalBatches o{.tokens = 3 * 1024, .sequences = 5, .length = 32};
  Seen mixed = seen(corpus, o);
  o.order = SequenceOrder::domain;
  Seen by_domain = seen(corpus, o);
  REQUIRE(mixed.sequences.size() == 96);
  for (std::size_t first = 0; first + 6 <= mixed.sequences.size(); ++first) {
    std::map<int, int> count;
    for (std::size_t q = first; q < first + 6; ++q)
      ++count[mixed.sequences[q].first];
    for (int d = 0; d < 3; ++d)
      CHECK(count[d] == 2);
  }
  CHECK(std::ranges::is_sorted(by_domain.sequences, {}, &Sequence::first));
  std::ranges::sort(mixed.sequences);
  std::ranges::sort(by_domain.sequences);
  CHECK(mixed.sequences == by_domain.sequences);
}

TEST_CASE("training batches have no order of domains") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus({"zipf:vocabulary=64"}, *tokenizer, 1);
  EvalBatches o{.tokens = 64, .sequences = 1, .length = 32};
  CHECK(seen(corpus, o).sequences.size() == 2);
  o.order = SequenceOrder::domain;
  CHECK_THROWS_WITH(seen(corpus, o), Catch::Contains("no order of domains"));
}

TEST_CASE("what a batch draws depends on the seed and its number alone") {
  const auto tokenizer = make_tokenizer("bytes");
  const Corpus corpus(three_domains, *tokenizer, 1);
  EvalBatches o{.tokens = 3 * 256, .sequences = 4, .length = 32, .seed = 7};
  const auto numbers = seen(corpus, o).drawn;
  CHECK(std::set(numbers.begin(), numbers.end()).size() == numbers.size());
  o.tokens = 3 * 128;  // fewer batches
  const auto fewer = seen(corpus, o).drawn;
  REQUIRE(fewer.size() < numbers.size());
  CHECK(std::equal(fewer.begin(), fewer.end(), numbers.begin()));
  o.seed = 8;
  CHECK(seen(corpus, o).drawn != fewer);
}
