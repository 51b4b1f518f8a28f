// How tokens spread over experts, as far as a plan needs it: for each MoE layer the chance that a
// token chooses an expert. Even and Zipf laws say it in one number, a trace says it by counting.
// Tokens of a batch are taken as independent of each other, as those of different requests are;
// neighbours in one text share more experts than that.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "lib/model/pieces.h"

namespace moe::plan {

struct ChoiceLaw {
  std::string name;
  Count experts = 0, k = 0;
  // one or more layers of (E) chances that a token chooses the expert, each sums to k
  std::vector<std::vector<double>> layer;

  // Experts of a layer that `tokens` of a batch touch, mean over layers: sum of 1 - (1 - p_e)^B.
  double distinct(double tokens) const;
  // Share of requests that a cache of `held` experts a layer catches, mean over layers: of the most
  // used ones for ever; of LRU (Che's approximation, IEEE JSAC 20(7), 2002, requests independent).
  double hits_most_used(Count held) const;
  double hits_lru(Count held) const;
  // Load of the busiest of R ranks over the mean one, experts in order, as it is expected of `rows`
  // (token, choice) pairs over all ranks: what the law itself makes uneven, and on top the largest
  // of R fluctuations, sqrt(2 ln R / rows a rank).
  double imbalance(Count ranks, double rows) const;
};

// "even", or "zipf:s=1" with the weight of the i-th expert i^-s. Of weights come the chances
// 1 - exp(-c w), c such that they sum to k: no expert is chosen twice by a token.
ChoiceLaw choice_law(std::string_view spec, Count experts, Count k);

}  // namespace moe::plan
