// What random routing would give: every token draws K distinct experts of E uniformly. Closed forms where there are any,
// else the mean over simulated traces of the same shape, from a fixed seed. A report prints these beside what was measured.
#pragma once
#include <functional>

#include "lib/core/matrix.h"
#include "lib/core/rng.h"

namespace moe::chance {

// T tokens, E experts, K choices (a mean, so it may be broken), N = T*K assignments.
double load_cv(double experts, double k, double tokens);            // sqrt((E/K-1)/T); E=8 K=2 T=1000: 0.0548
double load_jain(double experts, double k, double tokens);          // 1/(1+CV0^2)
double load_avgvio(double experts, double k, double tokens);        // sqrt(2/pi) CV0
double load_entropy(double experts, double k, double tokens);       // ln E - CV0^2/2, nats
double load_entropy_norm(double experts, double k, double tokens);  // 1 - CV0^2/(2 ln E); E=1: 1
double load_effective(double experts, double k, double tokens);     // 1 - CV0^2/2
double load_gini(double experts, double k, double tokens);          // CV0/sqrt(pi)
double load_dead(double experts, double k, double tokens);          // (1-K/E)^T
double repeat_any(double experts, double k);                        // 1 - C(E-K,K)/C(E,K); E=8 K=2: 0.4643
double distinct_experts(double experts, double k, double block);    // E (1-(1-K/E)^B)
double distinct_ranks(double experts, double k, double ranks);      // R (1-C(E-E/R,K)/C(E,K)); E=8 K=2 R=4: 1.857
double lru_hit_rate(double experts, double k, double cache);        // mean_{j<K} (C-j)/(E-j); C >= E: 1
double mi_bits(double labels, double experts, double k, double assignments);  // (V-1)(E-K)/(2 N ln 2)
double total_variation(double experts, double k, double tokens);      // of two load shares, T the harmonic mean of the two: sqrt((E-K)/(pi K T)), at most 1
double same_set(double experts, double k);                          // 1/C(E,K): two tokens choose the very same set
double crosslayer_mi_bits(double from, double to, double tokens);   // (E-1)(E'-1)/(2 T ln 2)

// Counts of T tokens that each draw K distinct of E; drawn token by token where that is cheap, else from the normal limit
// with the exact covariance (variance T p(1-p), sum fixed).
std::vector<std::int64_t> draw_counts(int experts, int k, std::int64_t tokens, Rng&);
std::int64_t draw_poisson(double mean, Rng&);  // normal above 64

// Mean over `runs` simulated count vectors of each statistic that `of` returns; the median for statistic `median_of`
// (max/min is infinite now and then). E < 1, K > E or T < 1: NaN.
using Statistics = std::function<std::vector<double>(std::span<const std::int64_t> counts)>;
std::vector<double> simulate_load(int experts, int k, std::int64_t tokens, std::size_t results, const Statistics& of, int runs = 200, int median_of = -1);

double domain_max_lift(int experts, int k, std::span<const std::int64_t> domain_tokens, int runs = 200);
double coactivation_max_lift(int experts, int k, std::int64_t tokens, int runs = 200);
double best_guess_share(int from, int to, std::int64_t tokens, int runs = 50);      // crosslayer_predictability
double biggest_share(int experts, int k, std::int64_t tokens, int runs = 100);      // E[max_e n_e]/n: one token id seen n times

}  // namespace moe::chance
