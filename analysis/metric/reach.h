// How far random routing gets: the worst value of a figure that it reaches in more than one of a
// hundred traces of a size. What lies within is no finding, and where a threshold lies within, the
// trace has too few tokens for a light.
#pragma once
#include <cstdint>
#include <functional>

#include "analysis/metric/chance.h"

namespace moe::chance {

constexpr double rarely = 0.01;  // of all random traces

struct Size {  // of one layer: `tokens` tokens choose k of the experts each
  double experts = 0, k = 0, tokens = 0;
  double layers = 1;  // among which the worst is looked for
};

// Of the worst of the layers; what is passed, not what is met. A layer without tokens: infinite, of
// balancedness 0.
double reach_load_cv(const Size&);  // chi-squared; where loads are small, of colliding pairs
double reach_maxvio(const Size&);   // binomial tails of all experts; E=8 K=2 T=12, 4 layers: 2
double reach_dead_fraction(const Size&);  // Poisson, or normal; E=8 K=2 T=12, 1 layer: 0.25
double reach_balancedness(const Size&, int ranks);  // low values are the bad ones

// Deviations above the mean that the worst of so many figures rarely passes, where their
// distribution may have the tail of a maximum (Gumbel); 1: 3.14
double rare_deviations(double figures);

// P(count >= c)
double poisson_tail(double mean, double c);
double binomial_tail(double n, double p, double c);  // c > n p

// The fewest tokens, to two digits, of which random routing does not reach the threshold; infinite
// where 10^15 are not enough.
using Reach = std::function<double(const Size&)>;
double tokens_needed(Size, const Reach&, double threshold, bool low_is_bad);

}  // namespace moe::chance
