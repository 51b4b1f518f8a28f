// Text of a fixed Markov chain for very small models, and what some routers need from outside.
#pragma once
#include "lib/core/batch.h"
#include "lib/core/rng.h"
#include "lib/router/learns_from_text.h"
#include "lib/router/replays_routes.h"
#include "lib/router/router.h"

namespace moe::test {

constexpr int words = 16;

// After word v comes one of three words with chances 0.7, 0.2 and 0.1.
inline int next_word(int v, Rng& rng) {
  const double u = rng.uniform();
  return u < 0.7 ? (5 * v + 3) % words : u < 0.9 ? (v * v + 7) % words : (11 * v + 2) % words;
}

inline Batch batch_of(std::uint64_t number, Index sequences, Index length) {
  Rng rng = Rng(3).stream(number);
  Batch b;
  for (Index q = 0; q < sequences; ++q) {
    int v = int(rng.below(words));
    for (Index t = 0; t < length; ++t) {
      b.token.push_back(v);
      b.target.push_back(v = next_word(v, rng));
    }
    b.start.push_back(b.tokens());
  }
  return b;
}

// Counts of token ids for routers that make a table of them; for a replay drawn routes of `text`.
inline void bring(Router& router, const std::vector<std::int64_t>& counts,
                  const std::vector<std::uint32_t>& text) {
  if (auto* table = capability<LearnsFromText>(router))
    table->learn(counts);
  auto* replay = capability<ReplaysRoutes>(router);
  if (!replay)
    return;
  const Index rows = Index(text.size());
  Recorded r{"a.h5", std::make_shared<const std::vector<std::uint32_t>>(text),
             Matrix<int>(rows, router.choices()), Matrix<float>(rows, router.choices(), 0.5f)};
  Rng rng(9);
  for (Index t = 0; t < rows; ++t) {
    const int first = int(rng.below(router.experts()));
    for (Index j = 0; j < router.choices(); ++j)
      r.expert(t, j) = int((first + j) % router.experts());
  }
  replay->replay(std::move(r));
}

}  // namespace moe::test
