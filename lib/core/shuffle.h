// Random orders (Fisher and Yates). What is drawn for what is part of datasets, synthetic traces
// and figures of chance, and never changes.
#pragma once
#include <utility>

#include "lib/core/rng.h"

namespace moe {

// A random order of all of them, from the back: as many draws as there are less one.
template <class Range>
void shuffle(Range& all, Rng& rng) {
  for (std::size_t i = all.size(); i > 1; --i)
    std::swap(all[i - 1], all[std::size_t(rng.below(Index(i)))]);
}

// Puts one of those from `at` on, each as likely, there: one draw. Called for 0, 1, ... it deals
// from a deck, which may lie in any order to begin with.
template <class Range>
void draw_to(Range& deck, std::size_t at, Rng& rng) {
  std::swap(deck[at], deck[at + std::size_t(rng.below(Index(deck.size() - at)))]);
}

}  // namespace moe
