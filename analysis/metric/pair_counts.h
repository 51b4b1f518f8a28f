// Counting pairs of choices, the most work of a report: K x K of them a token and layer.
#pragma once
#include "analysis/metric/joint.h"
#include "analysis/metric/metric.h"

namespace moe {

// out(i,j) += 1 for every choice i of `from` and every choice j of `to` of each token.
void count_pairs(const LayerChoices& from, const LayerChoices& to, std::span<const Index> tokens,
                 Counts& out);

// The pairs of one list, each choice with itself and with those behind it: once a pair, at (i,j) or
// at (j,i).
void count_own_pairs(const LayerChoices&, std::span<const Index> tokens, Counts& out);

// Calls count(cells) for some `steps` additions of 1, each to a cell of `out` or, where there are
// fewer cells than steps, of a table of half the size that is then added to it: large ones do not
// stay in the cache.
template <class Count>
void in_small_cells(Counts& out, std::size_t steps, Count count) {
  if (std::size_t(out.size()) > steps)
    return count(out.data());
  thread_local std::vector<std::uint32_t> small;
  small.assign(std::size_t(out.size()), 0);
  count(small.data());
  for (std::size_t c = 0; c < small.size(); ++c)
    out.data()[c] += small[c];
}

}  // namespace moe
