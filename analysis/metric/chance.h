// What random routing would give: every token draws K distinct experts of E uniformly. Closed forms
// where there are any, else the mean over simulated traces of the same shape, from a fixed seed. A
// report prints these beside what was measured; tests/metric/chance_test.cpp holds each of them to
// traces drawn at random.
#pragma once
#include <functional>
#include <limits>
#include <map>

#include "lib/core/matrix.h"
#include "lib/core/rng.h"

namespace moe::chance {

struct Value {  // of a figure over random traces
  double mean = std::numeric_limits<double>::quiet_NaN();
  double spread = std::numeric_limits<double>::quiet_NaN();  // standard deviation; NaN: not known
};
// mean and deviation of the finite ones; none: NaN
Value of_runs(std::span<const double> runs);
// Runs of a simulation over so many experts: `runs`, or fewer where they are very many, for figures
// over all of them stray less then and each run takes longer.
int runs_within(int runs, Index experts);
Value mean_of_independent(std::span<const Value> each);  // of the mean over layers

// ---- closed forms. T tokens, E experts, K choices (a mean, so it may be broken), N = T*K
// assignments. sqrt((E/K-1)/T), the root of the mean square; E=8 K=2 T=1000: 0.0548
double load_cv(double experts, double k, double tokens);
double load_jain(double experts, double k, double tokens);  // 1/(1+CV0^2)
double load_dead(double experts, double k, double tokens);  // (1-K/E)^T
// 1 - C(E-K,K)/C(E,K); E=8 K=2: 0.4643
double repeat_any(double experts, double k);
double distinct_experts(double experts, double k, double block);  // E (1-(1-K/E)^B)
// 1 - C(E-n,K)/C(E,K): a token has one of these n experts
double meets(double experts, double k, double of);
// sum of meets over ranks, rank = e R // E; E=8 K=2 R=4: 1.857
double distinct_ranks(int experts, double k, int ranks);
// of a warm cache: mean_{j<K} (C-j)/(E-j); C >= E: 1
double lru_hit_rate(double experts, double k, double cache);
// (V-1)(E-K)/(2 N ln 2), where every label is frequent
double mi_bits(double labels, double experts, double k, double assignments);
// of two load shares, T the harmonic mean of the two: sqrt((E-K)/(pi K T)), at most 1
double total_variation(double experts, double k, double tokens);
// 1/C(E,K): two tokens choose the very same set; K > E: as K = E
double same_set(double experts, double k);
// (E-1)(E'-1)/(2 T ln 2), where every expert has many tokens
double crosslayer_mi_bits(double from, double to, double tokens);
// mean of sqrt(chi-squared / freedom), what turns the root of a mean square into a mean; 4: 0.940
double mean_root(double freedom);
// mean of the largest of so many cosines of random directions; 1 pair: 0
double largest_cosine(double pairs, double dimensions);
// Counts of the `n` fullest of `cells` equal cells after `tokens` throws, falling (cells may be far
// more than tokens; Poisson counts).
std::vector<double> fullest_cells(double cells, double tokens, std::size_t n);

// ---- simulations
constexpr std::uint64_t seed = 20240229;  // of all of them: any number, always the same
// Counts of T tokens that each draw K distinct of E; drawn token by token where that is cheap, else
// from the normal limit with the exact covariance (variance T p(1-p), sum fixed) and skew.
std::vector<std::int64_t> draw_counts(int experts, int k, std::int64_t tokens, Rng&);
// distinct ones of a deck 0..E-1, which it keeps shuffled
void draw_experts(std::vector<int>& deck, std::span<int> out, Rng&);

// Every statistic that `of` returns for a simulated count vector, 32,768 experts in all (at least
// 100 vectors, at most 2000); the median for statistic `median_of` (max/min is infinite now and
// then). E < 1, K > E or T < 1: NaN.
using Statistics = std::function<std::vector<double>(std::span<const std::int64_t> counts)>;
std::vector<Value> simulate_load(int experts, int k, std::int64_t tokens, std::size_t results,
                                 const Statistics& of, int median_of = -1);

// The same for joint counts: a row of `columns` cells for each label, seen so many times, each time
// drawing K distinct.
using Counts = Matrix<std::int64_t>;
Counts draw_joint(std::span<const std::int64_t> row_tokens, int columns, int k, Rng&);
using JointStatistics = std::function<std::vector<double>(const Counts&)>;
std::vector<Value> simulate_joint(std::span<const std::int64_t> row_tokens, int columns, int k,
                                  std::size_t results, const JointStatistics& of);
// First choices of two layers: the rows are drawn too.
std::vector<Value> simulate_steps(int from, int to, std::int64_t tokens, std::size_t results,
                                  const JointStatistics& of);

// Of the pairs (i < j) of experts in falling order of lift, those expected at least 5 times: the
// first `top`.
struct PairValue {
  Value lift, conditional, npmi;
};
struct ClosestPairs {
  Value max_lift;  // of all pairs, however rarely expected
  std::vector<PairValue> listed;
};
ClosestPairs closest_pairs(int experts, int k, std::int64_t tokens, std::size_t top, int runs);

// A label (token id, document, position) seen `tokens` times, its counts n_e and their shares.
struct Label {
  Value share;      // max n_e / tokens
  Value entropy;    // of the shares, bits
  Value deviation;  // population deviation of the shares over e
  // (E) how often e has the largest count (tie: lower), and the mean of max n_e / tokens then
  std::vector<double> favourite, favourite_share;
};
// simulated once for each number of occurrences; above 32 in steps of a tenth, what is in between
// scaled
class Labels {
 public:
  Labels(int experts, int k) : experts_(experts), k_(k) {}
  const Label& nearest(std::int64_t tokens);  // favourites: of the nearest number simulated
  Value share(std::int64_t tokens);
  Value entropy(std::int64_t tokens);
  Value deviation(std::int64_t tokens);
  // probability, of two samples of these sizes
  double same_favourite(std::int64_t tokens, std::int64_t others);
  // plug-in information of the label about the expert
  Value mi_bits(std::span<const std::int64_t> label_tokens);

 private:
  std::int64_t step(std::int64_t tokens) const;
  void simulate(Label&, std::int64_t tokens) const;
  int experts_, k_;
  std::map<std::int64_t, Label> known_;
};

}  // namespace moe::chance
