// How far two figures rise and fall together, whatever their scales: Spearman's rank correlation,
// also within groups and with a third figure held fixed, and an interval for it. Pure functions.
#pragma once
#include <span>
#include <vector>

namespace moe::statistics {

// Of each value, how many are smaller; ties share the middle of their places. {5,1,5}: {1.5,0,1.5}
std::vector<double> ranks_of(std::span<const double> values);

// Spearman's rank correlation of pairs, -1..1; NaN where one of the two is constant. Sizes agree.
double rank_correlation(std::span<const double> a, std::span<const double> b);

// The same of what is left of both behind a third figure: the partial correlation of ranks. NaN
// where that is the rank order of one of the two. Where the third is constant: rank_correlation.
double partial_rank_correlation(std::span<const double> a, std::span<const double> b,
                                std::span<const double> fixed);

struct Correlated {
  double value = 0;          // NaN: not known
  double low = 0, high = 0;  // 95 %; NaN where fewer than four pairs can move
  double pairs = 0;          // that can move: those of groups less one a further group
};
// Ranks are taken within each group and joined as shares of their group, so that what sets groups
// apart does not count. Pairs with a value that is no number take no part, nor groups of one. The
// interval is Fisher's with the variance for ranks of Bonett and Wright ("Sample size requirements
// for estimating Pearson, Kendall and Spearman correlations", 2000); it takes pairs as independent.
Correlated rank_correlation_within(std::span<const double> a, std::span<const double> b,
                                   std::span<const int> group);

}  // namespace moe::statistics
